"""Cuts one request into slices that are scored apart, and joins their scores into its result.

A slice is what a worker puts into a micro-batch. Most requests are one slice. A long one is cut
between windows or between continuations, so that it shares micro-batches like short ones:

    text with windows        |--- window 0 ---|                          slice 0
                                     |--- window 1 ---|
                                             |--- window 2 ---|          slice 1
                                                     |--- window 3 ---|

    context, continuations   [context] then [a] and [b]                  slice 0
                             [context] then [c] and [d]                  slice 1

Each slice reads the context once, not once for each continuation (prefix sharing).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from model.scoring.log_likelihood import ByteScores, join_scores
from model.scoring.neighbours import group_neighbours
from model.scoring.request import ScoreRequest
from model.scoring.results import ScoredText, to_results
from model.scoring.sliding_window import TextWindow

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Slice:
    """A piece of a request, which is scored without the other pieces."""

    request: ScoreRequest
    """The whole request; where continuations were cut, the same with some of them."""
    windows: tuple[TextWindow, ...] = ()
    """The windows to score; empty unless the request has a window."""

    @property
    def num_bytes(self) -> int:
        """The bytes that the model reads for this slice."""
        if not self.windows:
            return self.request.num_bytes
        return sum(window.num_bytes for window in self.windows)


@dataclass(frozen=True, slots=True)
class SliceScores:
    """The scores of one slice. Only `Plan.join` reads them; exactly one field is set."""

    result: Result | None = None
    """The result of a text, or of some of the continuations."""
    byte_scores: ByteScores | None = None
    """The scores of some windows: sums and spans need those of all windows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A request and its slices. The slices may be scored anywhere and in any order."""

    request: ScoreRequest
    slices: tuple[Slice, ...]

    @classmethod
    def of(cls, request: ScoreRequest, max_slice_bytes: int | None = None) -> "Plan":
        """Cut `request` into slices that read at most `max_slice_bytes`; None leaves it whole.

        A slice is longer where it cannot be cut: a single window, a single continuation with its
        context, or a text without windows. A slice also holds at least as many bytes of
        continuations as its context has: so reading the context again at most doubles the work.
        """
        if max_slice_bytes is None or request.num_bytes <= max_slice_bytes:
            return cls(request, (Slice(request, tuple(request.windows)),))
        if request.window is not None:
            groups = group_neighbours(request.windows, max_slice_bytes, lambda each: each.num_bytes)
            return cls(request, tuple(Slice(request, windows) for windows in groups))
        if len(request.continuations) < 2:
            return cls(request, (Slice(request),))
        context_bytes = len(request.context)
        max_bytes = max(max_slice_bytes - context_bytes, context_bytes)
        texts = group_neighbours(request.continuations, max_bytes, len)
        return cls(request, tuple(Slice(replace(request, continuations=each)) for each in texts))

    def join(self, scores: Sequence[SliceScores]) -> Result:
        """Return the result of the request from the scores of each slice, in order.

        Its lists with a number for each byte are `LazyList`s; `result_json.dump_result` encodes
        them.

        Raises:
            ScoringFailed: a log-likelihood is not finite.
        """
        if self.request.window is not None:
            return self._join_windows(scores)
        results = [each.result for each in scores if each.result is not None]
        if len(results) == 1:
            return results[0]
        return {"continuations": [each for result in results for each in result["continuations"]]}

    def _join_windows(self, scores: Sequence[SliceScores]) -> Result:
        found = [each.byte_scores for each in scores if each.byte_scores is not None]
        text = scored_text(self.request, self.request.text)
        [result] = to_results([text], join_scores(found))
        windows = [window for each in self.slices for window in each.windows]
        return result | {"windows": [window._asdict() for window in windows]}


def scored_text(request: ScoreRequest, text: bytes) -> ScoredText:
    """Return `text`, one of the texts of `request`, with the outputs that the request asks for."""
    return ScoredText(text, request.outputs, request.top_k, request.spans)
