"""Passes in flight: the same results, calls and errors, in order, as one pass after the other."""

import json
from collections.abc import Callable

import pytest
import torch

from model import OutOfMemory, Scorer, ScoreRequest, ScoringFailed
from model.scoring import sequences
from model.scoring.forward import Reader
from model.scoring.in_flight import InFlight
from model.scoring.log_likelihood import PendingScores
from model.scoring.sliding_window import SlidingWindow

EVERYTHING = frozenset({"bytes", "top_k", "curvature"})
TEXT = "Passes in flight, \u00e9tude 3. ".encode() * 12

REQUESTS = [
    ScoreRequest(text=TEXT[:5]),
    ScoreRequest(text=TEXT, window=SlidingWindow(64, 32), spans="words"),
    ScoreRequest(text=TEXT[:300], outputs=EVERYTHING, top_k=3),
    ScoreRequest(context=TEXT[:70], continuations=(b"a", b"few more", TEXT[:30])),
    ScoreRequest(text=TEXT[3:90], outputs=EVERYTHING, top_k=1),
    ScoreRequest(text=b"", next_chars=2),
    ScoreRequest(text=TEXT[:40], next_chars=3, outputs=EVERYTHING),
    *(ScoreRequest(text=TEXT[start : start + 25]) for start in range(12)),
]


@pytest.fixture
def small_passes(tiny_checkpoint) -> Scorer:
    return Scorer.load(str(tiny_checkpoint), pass_bytes=48)


@pytest.fixture
def let_wait(monkeypatch) -> Callable[[int], None]:
    """Let this many passes wait, as on a GPU, while the next one is launched."""

    def let(max_waiting: int) -> None:
        monkeypatch.setattr(InFlight, "on", lambda device: InFlight(max_waiting))

    return let


def test_only_a_gpu_has_passes_in_flight():
    ended = []
    for device in ("cpu", "cuda"):
        passes = InFlight.on(torch.device(device))
        passes.add(lambda device=device: ended.append(device))
    assert ended == ["cpu"]


@pytest.mark.parametrize("max_waiting", [0, 1, 3])
def test_passes_end_in_order_and_none_is_left(max_waiting):
    ended, still_waiting = [], []
    with InFlight(max_waiting) as passes:
        for number in range(6):
            passes.add(lambda number=number: ended.append(number))
            still_waiting.append(number + 1 - len(ended))
    assert ended == list(range(6))
    assert max(still_waiting) == max_waiting


@pytest.mark.parametrize("max_waiting", [1, 2])
def test_results_and_calls_are_those_of_one_pass_after_the_other(
    small_passes, let_wait, max_waiting
):
    in_turn: list[int] = []
    expected = small_passes.score(REQUESTS, on_pass=in_turn.append)

    let_wait(max_waiting)
    in_flight: list[int] = []
    found = small_passes.score(REQUESTS, on_pass=in_flight.append)

    assert json.dumps(found) == json.dumps(expected)
    assert in_flight == in_turn


def test_results_are_built_after_the_next_pass_was_launched(small_passes, let_wait, monkeypatch):
    events = []
    read, fill = Reader.read, sequences.to_results

    def note_read(self, texts):
        events.append("launch")
        return read(self, texts)

    def note_results(texts, scores):
        events.append("results")
        return fill(texts, scores)

    monkeypatch.setattr(Reader, "read", note_read)
    monkeypatch.setattr(sequences, "to_results", note_results)
    let_wait(1)
    small_passes.score([ScoreRequest(text=TEXT[:40])] * 3)
    assert events == ["launch", "launch", "results", "launch", "results", "results"]


def fail_at_launch(monkeypatch, number: int, error: Exception) -> list[int]:
    """Have launch `number` (from 0) of all passes fail; return the sizes of all launches."""
    read, launched = Reader.read, []

    def read_or_fail(self, texts):
        launched.append(sum(map(len, texts)))
        if len(launched) == number + 1:
            raise error
        return read(self, texts)

    monkeypatch.setattr(Reader, "read", read_or_fail)
    return launched


@pytest.mark.parametrize("max_waiting", [0, 1])
def test_pass_without_memory_halves_passes_and_no_result_is_lost(
    small_passes, let_wait, monkeypatch, max_waiting
):
    scorer = Scorer(
        small_passes._model, small_passes.info, folder=small_passes.folder, pass_bytes=1024
    )
    requests = [ScoreRequest(text=TEXT[start : start + 200]) for start in range(12)]
    expected = scorer.score(requests)
    let_wait(max_waiting)
    launched = fail_at_launch(monkeypatch, 2, MemoryError())

    found = scorer.score(requests)

    assert scorer.pass_bytes == 512
    assert launched == [1000, 1000, 400, *[400] * 6]
    for result, other in zip(found, expected, strict=True):
        assert result["log_likelihood_nats"] == pytest.approx(
            other["log_likelihood_nats"], abs=1e-3
        )


@pytest.mark.parametrize("max_waiting", [0, 1, 2])
def test_error_of_an_earlier_pass_comes_before_that_of_a_later_launch(
    small_passes, let_wait, monkeypatch, max_waiting
):
    let_wait(max_waiting)
    launched = fail_at_launch(monkeypatch, 2, MemoryError())
    wait, waited = PendingScores.wait, []

    def wait_or_fail(self):
        waited.append(self)
        if len(waited) == 2:
            raise ScoringFailed("the second pass")
        return wait(self)

    monkeypatch.setattr(PendingScores, "wait", wait_or_fail)
    with pytest.raises(ScoringFailed, match="the second pass"):
        small_passes.score([ScoreRequest(text=TEXT[:40])] * 5)
    assert len(waited) == 2
    assert len(launched) <= 3


def test_passes_that_ended_before_an_error_are_counted(small_passes, let_wait, monkeypatch):
    let_wait(1)
    fail_at_launch(monkeypatch, 2, KeyError("third"))
    counted: list[int] = []
    with pytest.raises(KeyError, match="third"):
        small_passes.score([ScoreRequest(text=TEXT[:40])] * 5, on_pass=counted.append)
    assert counted == [40, 40]


def test_text_alone_that_does_not_fit_is_named(small_passes, let_wait, monkeypatch):
    let_wait(1)

    def fail(self, texts):
        raise MemoryError

    monkeypatch.setattr(Reader, "read", fail)
    with pytest.raises(OutOfMemory):
        small_passes.score([ScoreRequest(text=TEXT)])
