"""Scores slices: chooses which texts share a pass, and puts their scores into results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.grammar.outputs import NEEDING_MOMENTS
from contract.grammar.vocabulary import NUM_SPECIAL_IDS
from model.scoring.cpu_threads import count_lanes, cut_for_lanes, side_by_side
from model.scoring.forward import Contexts, Reader, cut_into_passes
from model.scoring.log_likelihood import ByteScores, join_scores, score_bytes
from model.scoring.neighbours import group_neighbours
from model.scoring.next_chars import search_characters
from model.scoring.plan import Result, Slice, SliceScores, scored_text
from model.scoring.request import ScoreRequest
from model.scoring.results import ScoredText, check_finite, to_empty_result, to_results
from model.scoring.sliding_window import TextWindow


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Bytes that are read as one sequence: `given` gets no score, `scored.text` does."""

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
    """Scores slices with a reader; tells `on_pass` after each pass how many bytes it read."""

    reader: Reader
    on_pass: Callable[[int], None]

    @torch.inference_mode()
    def score(self, slices: Sequence[Slice]) -> list[SliceScores]:
        """Return the scores of each slice, in order.

        Continuations share their context: it is read once, and they continue it (prefix sharing).
        A continuation longer than a pass is read alone with its context; with a reproducible
        reader, all are.
        """
        alone: list[_Sequence] = []
        families: list[tuple[bytes, list[_Sequence]]] = []
        continued: list[tuple[_Sequence, int]] = []
        scores: list[SliceScores] = []
        for each_slice in slices:
            request = each_slice.request
            if each_slice.windows:
                scores.append(SliceScores(byte_scores=self._score_windows(each_slice)))
                continue
            sequences = _sequences_of(request)
            branches = [each for each in sequences if each.num_scored <= self.reader.pass_bytes]
            if request.next_chars:
                continued.append((sequences[0], request.next_chars))
            elif len(branches) > 1 and request.context and not self.reader.is_reproducible:
                families.append((request.context, branches))
                alone += [each for each in sequences if each.num_scored > self.reader.pass_bytes]
            else:
                alone += sequences
            found = [each.result for each in sequences]
            result = {"continuations": found} if request.continuations else found[0]
            scores.append(SliceScores(result))
        self._score_alone(alone)
        self._score_families(families)
        self._score_and_continue(continued)
        return scores

    def _score_and_continue(self, continued: Sequence[tuple[_Sequence, int]]) -> None:
        """Score texts, and predict the given number of characters after each."""
        lengths = [sequence.num_scored + 1 for sequence, _ in continued]
        for numbers in self.reader.cut_to_continue(lengths):
            sequences = [continued[number][0] for number in numbers]
            contexts = self._score_to_ends(sequences)
            wanted = [continued[number][1] for number in numbers]
            found = search_characters(self.reader, contexts, wanted, on_pass=self.on_pass)
            for sequence, characters in zip(sequences, found, strict=True):
                sequence.result["next_chars"] = characters

    def _score_to_ends(self, sequences: Sequence[_Sequence]) -> Contexts:
        """Score sequences as `_score_together` does; return contexts that continue them."""
        texts = [each.scored.text for each in sequences]
        ends = np.array([len(text) + 1 for text in texts]).cumsum() - 1
        # The last token of each text predicts what follows it.
        predicts = np.ones(ends[-1] + 1, dtype=np.bool_)
        predicts[ends] = False
        targets = np.zeros(len(predicts), dtype=np.int64)
        targets[predicts] = _targets(texts)
        pieces, start = [], 0
        for hidden, contexts in self.reader.read_to_ends(texts):  # noqa: B007 - the last counts
            end = start + len(hidden)
            pieces += self._score_wanted(hidden, predicts[start:end], targets[start:end], sequences)
            self.on_pass(int(predicts[start:end].sum()))
            start = end
        for each in sequences:
            each.result.update({} if each.num_scored else to_empty_result(each.scored))
        if pieces:
            _fill([each for each in sequences if each.num_scored], join_scores(pieces))
        return contexts

    def _score_windows(self, each_slice: Slice) -> ByteScores:
        """Score the windows of a slice in turn; neighbours that fit one pass share it."""
        pieces = []
        for windows in group_neighbours(
            each_slice.windows, self.reader.pass_bytes, lambda window: window.num_bytes
        ):
            sequences = [_in_window(each_slice.request, window) for window in windows]
            pieces.append(self._score_together(sequences))
        scores = join_scores(pieces)
        # The other slices of this text may be in other micro-batches: this one fails alone.
        check_finite(scores.log_prob)
        return scores

    def _score_alone(self, sequences: Sequence[_Sequence]) -> None:
        """Score sequences that share nothing: long ones in turn, short ones in parallel."""
        pass_bytes = self.reader.pass_bytes
        num_lanes = count_lanes(self.reader.model.device, pass_bytes)
        lane_bytes = pass_bytes // num_lanes
        long = [each for each in sequences if each.num_bytes > lane_bytes]
        short = [each for each in sequences if each.num_bytes <= lane_bytes]
        for of_pass in _cut_for_lanes(long, pass_bytes, num_lanes=1):
            _fill(of_pass, self._score_together(of_pass))
        passes = _cut_for_lanes(short, lane_bytes, num_lanes)
        # `on_pass` is called in this thread only: it need not be safe in several.
        in_lane = replace(self, on_pass=tell_nobody)
        for of_pass, scores in zip(
            passes, side_by_side(in_lane._score_together, passes, num_lanes), strict=True
        ):
            _fill(of_pass, scores)
            self.on_pass(sum(each.num_bytes for each in of_pass))

    @torch.inference_mode()  # a mode of the thread
    def _score_together(self, sequences: Sequence[_Sequence]) -> ByteScores:
        """Score sequences that fit one pass, or a single one of any length."""
        texts = [each.given + each.scored.text for each in sequences]
        targets, is_scored = _targets(texts), _is_scored(sequences)
        pieces, start = [], 0
        for hidden in self.reader.read(texts):
            end = start + len(hidden)
            pieces += self._score_wanted(
                hidden, is_scored[start:end], targets[start:end], sequences
            )
            self.on_pass(end - start)
            start = end
        return join_scores(pieces)

    def _score_wanted(
        self,
        hidden: Tensor,
        is_wanted: NDArray[np.bool_],
        targets: NDArray[np.int64],
        sequences: Sequence[_Sequence],
    ) -> list[ByteScores]:
        """Score the wanted `targets` of a pass; return nothing where none is wanted."""
        wanted = np.flatnonzero(is_wanted)
        if len(wanted) == 0:
            return []
        if len(wanted) < len(hidden):
            hidden = hidden[torch.from_numpy(wanted).to(hidden.device)]
        return [self._score_bytes(hidden, targets[wanted], sequences)]

    def _score_families(self, families: Sequence[tuple[bytes, list[_Sequence]]]) -> None:
        """Read contexts, as many as fit a pass, and score their branches after them."""
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
            sequences = [branches[number] for number in numbers]
            texts = [branch.scored.text for branch in sequences]
            numbers_of_contexts = np.array([context_of[number] for number in numbers])
            hidden = self.reader.predict_on(contexts, numbers_of_contexts, texts)
            _fill(sequences, self._score_bytes(hidden, _targets(texts), sequences))
            self.on_pass(sum(map(len, texts)))

    def _score_bytes(
        self, hidden: Tensor, targets: NDArray[np.int64], sequences: Sequence[_Sequence]
    ) -> ByteScores:
        """Score the ids `targets` by the hidden states that predict them."""
        model = self.reader.model
        return score_bytes(
            hidden,
            model.next_id_weight,
            torch.from_numpy(targets).to(hidden.device),
            with_moments=any(each.scored.outputs & NEEDING_MOMENTS for each in sequences),
            top_k=max(each.scored.top_k for each in sequences),
            backend=model.model.backend,
        )


def _cut_for_lanes(
    sequences: Sequence[_Sequence], pass_bytes: int, num_lanes: int
) -> list[list[_Sequence]]:
    """Cut `sequences` into passes; `num_lanes` of them run in parallel."""
    lengths = [sequence.num_bytes for sequence in sequences]
    passes = cut_for_lanes(lengths, pass_bytes, num_lanes)
    return [[sequences[number] for number in numbers] for numbers in passes]


def tell_nobody(num_bytes: int) -> None:
    """Ignore a pass: the `on_pass` of callers that do not count passes."""


def _in_window(request: ScoreRequest, window: TextWindow) -> _Sequence:
    return _Sequence(
        request.text[window.context_from : window.start],
        scored_text(request, request.text[window.start : window.end]),
    )


def _sequences_of(request: ScoreRequest) -> list[_Sequence]:
    if not request.continuations:
        return [_Sequence(b"", scored_text(request, request.text))]
    return [
        _Sequence(request.context, scored_text(request, text)) for text in request.continuations
    ]


def _fill(sequences: Sequence[_Sequence], scores: ByteScores) -> None:
    """Fill in the results of sequences from the scores of their texts, end to end."""
    results = to_results([each.scored for each in sequences], scores)
    for sequence, result in zip(sequences, results, strict=True):
        sequence.result.update(result)


def _targets(texts: Sequence[bytes]) -> NDArray[np.int64]:
    """Return the ids of the bytes of `texts`, end to end."""
    return np.frombuffer(b"".join(texts), dtype=np.uint8).astype(np.int64) + NUM_SPECIAL_IDS


def _is_scored(sequences: Sequence[_Sequence]) -> NDArray[np.bool_]:
    """Tell which bytes of the sequences get a score: [T] bool."""
    spans = [length for each in sequences for length in (len(each.given), each.num_scored)]
    return np.repeat(np.tile([False, True], len(sequences)), spans)
