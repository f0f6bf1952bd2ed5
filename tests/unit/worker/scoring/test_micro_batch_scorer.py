"""One outcome per slice: failing micro-batches are halved until the culprit is alone."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from contract.errors import OutOfMemory, ScoringFailed
from model import OutOfMemory as ModelOutOfMemory
from model import ScoreRequest, Slice, SliceScores
from worker.scoring import micro_batch_scorer
from worker.scoring.micro_batch_scorer import MemoryTaken, ModelBroken, score_slices


class FakeScorer:
    """Scores a text by its length; fails on the text `bad`, and on more than `room_bytes`."""

    info = SimpleNamespace(max_text_bytes=32_767)

    def __init__(self, bad: bytes = b"", room_bytes: int = 10**9, is_broken: bool = False) -> None:
        self.bad, self.room_bytes, self.is_broken = bad, room_bytes, is_broken
        self.num_passes = 0

    def score(self, texts: Sequence[ScoreRequest]) -> list[dict]:
        return [each.result for each in self.score_slices([Slice(text) for text in texts])]

    def score_slices(self, slices: Sequence[Slice], on_pass=None) -> list[SliceScores]:
        self.num_passes += 1
        texts = [each.request for each in slices]
        if self.is_broken or any(self.bad and text.text == self.bad for text in texts):
            raise RuntimeError("a message that quotes the text")
        if sum(text.num_bytes for text in texts) > self.room_bytes:
            raise ModelOutOfMemory("no room")
        return [
            SliceScores({"num_bytes": text.num_bytes, "log_likelihood_nats": -1.0 * text.num_bytes})
            for text in texts
        ]


def score(scorer: FakeScorer, *texts: bytes, on_out_of_memory=lambda: None):
    slices = [Slice(ScoreRequest(text=text)) for text in texts]
    return score_slices(scorer, slices, on_pass=lambda _: None, on_out_of_memory=on_out_of_memory)


def test_culprit_fails_alone_and_its_mates_are_scored():
    texts = [b"x" * (i + 1) for i in range(45)]
    outcomes = score(FakeScorer(bad=texts[17]), *texts)
    assert isinstance(outcomes[17], ScoringFailed)
    assert [o.result["num_bytes"] for i, o in enumerate(outcomes) if i != 17] == [
        i + 1 for i in range(45) if i != 17
    ]


def test_error_message_does_not_quote_the_text():
    (outcome,) = score(FakeScorer(bad=b"secret"), b"secret")
    assert "quotes" not in outcome.message


def test_micro_batch_that_does_not_fit_is_halved_until_it_does():
    halvings: list[int] = []
    outcomes = score(
        FakeScorer(room_bytes=100),
        *[b"x" * 60] * 4,
        on_out_of_memory=lambda: halvings.append(1),
    )
    assert [outcome.result["num_bytes"] for outcome in outcomes] == [60] * 4
    assert len(halvings) == 1


@pytest.mark.parametrize(("room_bytes", "expected"), [(10_000, 0), (1000, 1)])
def test_text_that_does_not_fit_even_alone_fails_alone(room_bytes, expected):
    halvings: list[int] = []
    outcomes = score(
        FakeScorer(room_bytes=room_bytes),
        *[b"x" * 10_001, *[b"y" * 600] * 7],
        on_out_of_memory=lambda: halvings.append(1),
    )
    assert isinstance(outcomes[0], OutOfMemory)
    assert [outcome.result["num_bytes"] for outcome in outcomes[1:]] == [600] * 7
    # The limit of micro-batches falls only if texts that fit alone were too many together.
    assert len(halvings) == expected


def test_no_text_fails_while_not_even_the_canary_fits(monkeypatch):
    monkeypatch.setattr(micro_batch_scorer, "MEMORY_WAIT_S", 0.0)
    with pytest.raises(MemoryTaken):
        score(FakeScorer(room_bytes=0), b"x", b"y")


def test_memory_that_was_taken_for_a_moment_costs_no_text_its_score():
    scorer = FakeScorer(room_bytes=0)

    def score_again(slices: Sequence[Slice], on_pass=None) -> list[SliceScores]:
        # The text, then the canary; memory is back when the canary is scored again.
        scorer.room_bytes = 10**9 if scorer.num_passes == 2 else scorer.room_bytes
        return FakeScorer.score_slices(scorer, slices, on_pass)

    scorer.score_slices = score_again
    (outcome,) = score(scorer, b"x" * 7)
    assert outcome.result["num_bytes"] == 7


def test_model_that_fails_on_plain_text_is_not_blamed_on_the_text():
    with pytest.raises(ModelBroken):
        score(FakeScorer(is_broken=True), b"fine")
