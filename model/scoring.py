"""From requests to results: which texts share a pass, and where their scores go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.log_likelihood import ByteScores, join_scores, score_bytes
from model.next_chars import next_characters
from model.reading import Contexts, Reader, cut_into_passes
from model.request import ScoreRequest
from model.results import ScoredText, to_empty_result, to_results
from model.vocabulary import NUM_SPECIAL_IDS

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Bytes that are read together: those `given` get no score, those of `scored.text` do."""

    given: bytes
    scored: ScoredText
    result: Result = field(default_factory=dict)  # filled once the scores are there

    @property
    def num_bytes(self) -> int:
        return len(self.given) + len(self.scored.text)

    @property
    def num_scored(self) -> int:
        return len(self.scored.text)


@dataclass(frozen=True, slots=True)
class Scoring:
    """Scores requests with a reader; tells `on_pass` after each pass how many bytes it read."""

    reader: Reader
    on_pass: Callable[[int], None]

    @torch.inference_mode()
    def score(self, requests: Sequence[ScoreRequest]) -> list[Result]:
        """Return one result per request, in order.

        Several continuations of a context share it: it is read once, and each of them after it.
        One that is longer than a pass is read alone, with its context.
        """
        alone: list[_Sequence] = []
        families: list[tuple[bytes, list[_Sequence]]] = []
        results: list[Result] = []
        for request in requests:
            if request.window is not None:
                results.append(self._score_windows(request))
                continue
            if not (request.text or request.continuations):
                results.append(to_empty_result(_scored(request, b"")))
                continue
            sequences = _sequences_of(request)
            branches = [each for each in sequences if each.num_scored <= self.reader.pass_bytes]
            if len(branches) > 1 and request.context:
                families.append((request.context, branches))
                alone += [each for each in sequences if each.num_scored > self.reader.pass_bytes]
            else:
                alone += sequences
            found = [each.result for each in sequences]
            results.append({"continuations": found} if request.continuations else found[0])
        self._score_alone(alone)
        self._score_families(families)
        self._predict_characters(requests, results)
        return results

    def _predict_characters(
        self, requests: Sequence[ScoreRequest], results: Sequence[Result]
    ) -> None:
        """Add the next characters where they are asked for."""
        asked = [number for number, request in enumerate(requests) if request.next_chars]
        predicted = next_characters(
            self.reader,
            [requests[number].text for number in asked],
            [requests[number].next_chars for number in asked],
            on_pass=self.on_pass,
        )
        for number, characters in zip(asked, predicted, strict=True):
            results[number]["next_chars"] = characters

    def _score_windows(self, request: ScoreRequest) -> Result:
        """Score a text window by window."""
        assert request.window is not None
        windows = request.window.cut(len(request.text))
        parts = [
            self._score_together(
                [
                    _Sequence(
                        request.text[window.context_from : window.start],
                        _scored(request, request.text[window.start : window.end]),
                    )
                ]
            )
            for window in windows
        ]
        [result] = to_results([_scored(request, request.text)], join_scores(parts))
        return result | {"windows": [window._asdict() for window in windows]}

    def _score_alone(self, sequences: Sequence[_Sequence]) -> None:
        """Score sequences that share nothing."""
        lengths = [sequence.num_bytes for sequence in sequences]
        for numbers in cut_into_passes(lengths, self.reader.pass_bytes):
            batch = [sequences[number] for number in numbers]
            _fill(batch, self._score_together(batch))

    def _score_together(self, batch: Sequence[_Sequence]) -> ByteScores:
        """Score `batch`, which is read at once or is a single sequence."""
        texts = [each.given + each.scored.text for each in batch]
        targets, is_scored = _targets(texts), _is_scored(batch)
        parts, start = [], 0
        for hidden in self.reader.read(texts):
            end = start + len(hidden)
            wanted = np.flatnonzero(is_scored[start:end])
            if len(wanted) < len(hidden):
                hidden = hidden[torch.from_numpy(wanted).to(hidden.device)]
            if len(wanted):
                parts.append(self._score_bytes(hidden, targets[start:end][wanted], batch))
            self.on_pass(end - start)
            start = end
        return join_scores(parts)

    def _score_families(self, families: Sequence[tuple[bytes, list[_Sequence]]]) -> None:
        """Score branches after their contexts; as many contexts are kept at once as fit a pass."""
        lengths = [len(context) for context, _ in families]
        for numbers in cut_into_passes(lengths, self.reader.pass_bytes):
            contexts = self.reader.read_contexts([families[number][0] for number in numbers])
            self.on_pass(sum(lengths[number] for number in numbers))
            branches = [families[number][1] for number in numbers]
            context_of = [place for place, each in enumerate(branches) for _ in each]
            self._score_branches(contexts, context_of, list(chain.from_iterable(branches)))

    def _score_branches(
        self, contexts: Contexts, context_of: Sequence[int], branches: Sequence[_Sequence]
    ) -> None:
        lengths = [branch.num_scored for branch in branches]
        for numbers in cut_into_passes(lengths, self.reader.pass_bytes):
            batch = [branches[number] for number in numbers]
            texts = [branch.scored.text for branch in batch]
            numbers_of_contexts = np.array([context_of[number] for number in numbers])
            hidden = self.reader.predict_on(contexts, numbers_of_contexts, texts)
            _fill(batch, self._score_bytes(hidden, _targets(texts), batch))
            self.on_pass(sum(map(len, texts)))

    def _score_bytes(
        self, hidden: Tensor, targets: NDArray[np.int64], batch: Sequence[_Sequence]
    ) -> ByteScores:
        """Score the ids `targets` by the hidden states that predict them."""
        model = self.reader.model
        return score_bytes(
            hidden,
            model.next_id_weight,
            torch.from_numpy(targets).to(hidden.device),
            with_moments=any(each.scored.outputs & {"bytes", "curvature"} for each in batch),
            top_k=max(each.scored.top_k for each in batch),
            backend=model.model.backend,
        )


def _sequences_of(request: ScoreRequest) -> list[_Sequence]:
    if not request.continuations:
        return [_Sequence(b"", _scored(request, request.text))]
    return [_Sequence(request.context, _scored(request, text)) for text in request.continuations]


def _scored(request: ScoreRequest, text: bytes) -> ScoredText:
    return ScoredText(text, request.outputs, request.top_k)


def _fill(batch: Sequence[_Sequence], scores: ByteScores) -> None:
    """Put the scores of all texts of `batch` where their results are awaited."""
    results = to_results([each.scored for each in batch], scores)
    for sequence, result in zip(batch, results, strict=True):
        sequence.result.update(result)


def _targets(texts: Sequence[bytes]) -> NDArray[np.int64]:
    """The ids of the bytes of `texts`, end to end."""
    return np.frombuffer(b"".join(texts), dtype=np.uint8).astype(np.int64) + NUM_SPECIAL_IDS


def _is_scored(batch: Sequence[_Sequence]) -> NDArray[np.bool_]:
    """Which bytes of `batch` get a score: [T] bool."""
    spans = [length for each in batch for length in (len(each.given), each.num_scored)]
    return np.repeat(np.tile([False, True], len(batch)), spans)
