"""Holds the sequences that a pass reads, and puts the scores of their bytes into results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model.scoring.log_likelihood import ByteScores, PendingScores, join_scores
from model.scoring.plan import Result, scored_text
from model.scoring.request import ScoreRequest
from model.scoring.results import ScoredText, to_empty_result, to_results
from model.scoring.sliding_window import TextWindow

OnScores = Callable[[ByteScores], None]


@dataclass(frozen=True, slots=True)
class ReadSequence:
    """Bytes that are read as one sequence: `given` gets no score, `scored.text` does."""

    given: bytes
    scored: ScoredText
    result: Result = field(default_factory=dict)  # filled once the scores are there

    @property
    def num_bytes(self) -> int:
        """The bytes that are read."""
        return len(self.given) + len(self.scored.text)

    @property
    def num_scored(self) -> int:
        """The bytes that get a score."""
        return len(self.scored.text)


@dataclass(frozen=True, slots=True)
class Pieces:
    """The scores of texts that are read in one pass or several; the last pass completes them."""

    on_scores: OnScores
    on_pass: Callable[[int], None]
    found: list[ByteScores] = field(default_factory=list)

    def taker(
        self, pending: PendingScores | None, num_bytes: int, *, is_last: bool
    ) -> Callable[[], None]:
        """Return what is to be done when a pass over `num_bytes` has ended."""

        def take() -> None:
            if pending is not None:
                self.found.append(pending.wait())
            self.on_pass(num_bytes)
            if is_last:
                self.on_scores(join_scores(self.found))

        return take


def in_window(request: ScoreRequest, window: TextWindow) -> ReadSequence:
    """Return the sequence that is read for one window of a text."""
    return ReadSequence(
        request.text[window.context_from : window.start],
        scored_text(request, request.text[window.start : window.end]),
    )


def sequences_of(request: ScoreRequest) -> list[ReadSequence]:
    """Return the text of a request without windows, or its continuations after their context."""
    if not request.continuations:
        return [ReadSequence(b"", scored_text(request, request.text))]
    return [
        ReadSequence(request.context, scored_text(request, text)) for text in request.continuations
    ]


def fill_empty(sequences: Sequence[ReadSequence]) -> None:
    """Fill in the results of sequences without a byte to score."""
    for sequence in sequences:
        if not sequence.num_scored:
            sequence.result.update(to_empty_result(sequence.scored))


def fill_results(sequences: Sequence[ReadSequence], scores: ByteScores) -> None:
    """Fill in the results of sequences from the scores of their texts, end to end."""
    results = to_results([each.scored for each in sequences], scores)
    for sequence, result in zip(sequences, results, strict=True):
        sequence.result.update(result)


def is_scored(sequences: Sequence[ReadSequence]) -> NDArray[np.bool_]:
    """Tell which bytes of the sequences get a score: [T] bool."""
    spans = [length for each in sequences for length in (len(each.given), each.num_scored)]
    return np.repeat(np.tile([False, True], len(sequences)), spans)
