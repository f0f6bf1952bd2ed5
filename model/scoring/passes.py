"""Scores slices: chooses which texts share a pass, and puts their scores into results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, compress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.grammar.outputs import NEEDING_MOMENTS
from model.evabyte.transfers import to_device
from model.scoring.cpu_threads import count_lanes, cut_for_lanes, side_by_side
from model.scoring.forward import Contexts, Reader, cut_into_passes, ids_of
from model.scoring.in_flight import InFlight
from model.scoring.log_likelihood import ByteScores, PendingScores, begin_scoring, join_scores
from model.scoring.neighbours import group_neighbours
from model.scoring.next_chars import search_characters
from model.scoring.plan import Slice, SliceScores
from model.scoring.results import check_finite
from model.scoring.sequences import (
    OnScores,
    Pieces,
    ReadSequence,
    fill_empty,
    fill_results,
    in_window,
    is_scored,
    sequences_of,
)


@dataclass(frozen=True, slots=True)
class Scoring:
    """Scores slices with a reader; calls `on_pass` after each pass with the bytes that it read."""

    reader: Reader
    on_pass: Callable[[int], None]
    in_flight: InFlight

    @torch.inference_mode()
    def score(self, slices: Sequence[Slice]) -> list[SliceScores]:
        """Return the scores of each slice, in order.

        Continuations share their context: it is read once, and they continue it (prefix sharing).
        A continuation longer than a pass is read alone with its context; with a reproducible
        reader, all are.
        """
        scores: dict[int, SliceScores] = {}
        with self.in_flight:
            self._score_into(scores, slices)
        return [scores[number] for number in range(len(slices))]

    def _score_into(self, scores: dict[int, SliceScores], slices: Sequence[Slice]) -> None:
        """Launch the passes of all slices; `scores` is complete when none is in flight."""
        alone: list[ReadSequence] = []
        families: list[tuple[bytes, list[ReadSequence]]] = []
        continued: list[tuple[ReadSequence, int]] = []
        for place, each_slice in enumerate(slices):
            request = each_slice.request
            if each_slice.windows:
                self._score_windows(each_slice, partial(_add_windows, scores, place))
                continue
            sequences = sequences_of(request)
            fill_empty(sequences)
            pass_bytes = self.reader.pass_bytes
            branches = [each for each in sequences if 0 < each.num_scored <= pass_bytes]
            if request.next_chars:
                continued.append((sequences[0], request.next_chars))
            elif len(branches) > 1 and request.context and not self.reader.is_reproducible:
                families.append((request.context, branches))
                alone += [each for each in sequences if each.num_scored > pass_bytes]
            else:
                alone += [each for each in sequences if each.num_scored]
            found = [each.result for each in sequences]
            result = {"continuations": found} if request.continuations else found[0]
            scores[place] = SliceScores(result)
        self._score_alone(alone)
        self._score_families(families)
        self._score_and_continue(continued)

    def _score_and_continue(self, continued: Sequence[tuple[ReadSequence, int]]) -> None:
        """Score texts, and predict the given number of characters after each."""
        lengths = [sequence.num_scored + 1 for sequence, _ in continued]
        for numbers in self.reader.cut_to_continue(lengths):
            sequences = [continued[number][0] for number in numbers]
            contexts = self._score_to_ends(sequences)
            # The search waits for the device anyway, and its result is the last one of a text.
            self.in_flight.drain()
            wanted = [continued[number][1] for number in numbers]
            found = search_characters(self.reader, contexts, wanted, on_pass=self.on_pass)
            for sequence, characters in zip(sequences, found, strict=True):
                sequence.result["next_chars"] = characters
            # As in `_score_families`.
            del contexts

    def _score_to_ends(self, sequences: Sequence[ReadSequence]) -> Contexts:
        """Score sequences as `_score_together` does; return contexts that continue them."""
        texts = [each.scored.text for each in sequences]
        ends = np.array([len(text) + 1 for text in texts]).cumsum() - 1
        # The last token of each text predicts what follows it.
        predicts = np.ones(ends[-1] + 1, dtype=np.bool_)
        predicts[ends] = False
        targets = np.zeros(len(predicts), dtype=np.int64)
        targets[predicts] = ids_of(texts)
        scored = [each for each in sequences if each.num_scored]
        pieces = Pieces(partial(fill_results, scored), self.on_pass)
        start = 0
        for hidden, contexts in self.reader.read_to_ends(texts):  # noqa: B007 - the last counts
            end = start + len(hidden)
            pending = self._begin(hidden, predicts[start:end], targets[start:end], sequences)
            is_last = end == len(targets) and len(scored) > 0
            num_bytes = int(predicts[start:end].sum())
            self.in_flight.add(pieces.taker(pending, num_bytes, is_last=is_last))
            start = end
        return contexts

    def _score_windows(self, each_slice: Slice, on_scores: OnScores) -> None:
        """Score the windows of a slice in turn; neighbours that fit one pass share it."""
        groups = list(
            group_neighbours(
                each_slice.windows, self.reader.pass_bytes, lambda window: window.num_bytes
            )
        )
        found: list[ByteScores] = []

        def take(scores: ByteScores) -> None:
            found.append(scores)
            if len(found) == len(groups):
                on_scores(join_scores(found))

        for windows in groups:
            self._score_together([in_window(each_slice.request, each) for each in windows], take)

    def _score_alone(self, sequences: Sequence[ReadSequence]) -> None:
        """Score sequences that share nothing: long ones in turn, short ones in parallel."""
        pass_bytes = self.reader.pass_bytes
        num_lanes = count_lanes(self.reader.model.device, pass_bytes)
        lane_bytes = pass_bytes // num_lanes
        is_in_turn = [num_lanes == 1 or each.num_bytes > lane_bytes for each in sequences]
        for of_pass in _cut_for_lanes(list(compress(sequences, is_in_turn)), pass_bytes, 1):
            self._score_together(of_pass, partial(fill_results, of_pass))
        short = [each for each, in_turn in zip(sequences, is_in_turn, strict=True) if not in_turn]
        passes = _cut_for_lanes(short, lane_bytes, num_lanes)
        for of_pass, scores in zip(
            passes, side_by_side(self._scores_in_lane, passes, num_lanes), strict=True
        ):
            fill_results(of_pass, scores)
            self.on_pass(sum(each.num_bytes for each in of_pass))

    @torch.inference_mode()  # a mode of the thread
    def _scores_in_lane(self, sequences: Sequence[ReadSequence]) -> ByteScores:
        """Return the scores of sequences that fit one pass, in a thread of its own on a CPU."""
        # `on_pass` is called in the caller's thread only: it need not be safe in several.
        in_lane = replace(self, on_pass=tell_nobody, in_flight=InFlight(0))
        found: list[ByteScores] = []
        in_lane._score_together(sequences, found.append)
        return found[0]

    def _score_together(self, sequences: Sequence[ReadSequence], on_scores: OnScores) -> None:
        """Score sequences that fit one pass, or a single one of any length.

        `on_scores` gets the scores when the last pass has ended.
        """
        texts = [each.given + each.scored.text for each in sequences]
        targets, is_wanted = ids_of(texts), is_scored(sequences)
        pieces, start = Pieces(on_scores, self.on_pass), 0
        for hidden in self.reader.read(texts):
            end = start + len(hidden)
            pending = self._begin(hidden, is_wanted[start:end], targets[start:end], sequences)
            self.in_flight.add(pieces.taker(pending, end - start, is_last=end == len(targets)))
            start = end

    def _begin(
        self,
        hidden: Tensor,
        is_wanted: NDArray[np.bool_],
        targets: NDArray[np.int64],
        sequences: Sequence[ReadSequence],
    ) -> PendingScores | None:
        """Begin to score the wanted `targets` of a pass; return None where none is wanted."""
        wanted = np.flatnonzero(is_wanted)
        if len(wanted) == 0:
            return None
        if len(wanted) == len(hidden):
            return self._score_bytes(hidden, torch.from_numpy(targets), sequences)
        on_host = torch.from_numpy(wanted), torch.from_numpy(targets[wanted])
        rows, ids = to_device(on_host, hidden.device)
        return self._score_bytes(hidden.index_select(0, rows), ids, sequences)

    def _score_families(self, families: Sequence[tuple[bytes, list[ReadSequence]]]) -> None:
        """Read contexts, as many as fit a pass, and score their branches after them."""
        lengths = [len(context) for context, _ in families]
        for numbers in cut_into_passes(lengths, self.reader.pass_bytes):
            contexts = self.reader.read_contexts([families[number][0] for number in numbers])
            num_bytes = sum(lengths[number] for number in numbers)
            self.in_flight.add(partial(self.on_pass, num_bytes))
            branches = [families[number][1] for number in numbers]
            context_of = [place for place, each in enumerate(branches) for _ in each]
            self._score_branches(contexts, context_of, list(chain.from_iterable(branches)))
            # Else two sets of contexts would be in memory while the next one is read.
            del contexts

    def _score_branches(
        self, contexts: Contexts, context_of: Sequence[int], branches: Sequence[ReadSequence]
    ) -> None:
        lengths = [branch.num_scored for branch in branches]
        for numbers in cut_into_passes(lengths, self.reader.pass_bytes):
            sequences = [branches[number] for number in numbers]
            texts = [branch.scored.text for branch in sequences]
            numbers_of_contexts = np.array([context_of[number] for number in numbers])
            hidden = self.reader.predict_on(contexts, numbers_of_contexts, texts)
            pending = self._score_bytes(hidden, torch.from_numpy(ids_of(texts)), sequences)
            pieces = Pieces(partial(fill_results, sequences), self.on_pass)
            self.in_flight.add(pieces.taker(pending, sum(map(len, texts)), is_last=True))

    def _score_bytes(
        self, hidden: Tensor, targets: Tensor, sequences: Sequence[ReadSequence]
    ) -> PendingScores:
        """Begin to score the ids `targets` by the hidden states that predict them."""
        model = self.reader.model
        return begin_scoring(
            hidden,
            model.next_id_weight,
            to_device(targets, hidden.device),
            with_moments=any(each.scored.outputs & NEEDING_MOMENTS for each in sequences),
            top_k=max(each.scored.top_k for each in sequences),
            backend=model.model.backend,
        )


def _cut_for_lanes(
    sequences: Sequence[ReadSequence], pass_bytes: int, num_lanes: int
) -> list[list[ReadSequence]]:
    """Cut `sequences` into passes; `num_lanes` of them run in parallel."""
    lengths = [sequence.num_bytes for sequence in sequences]
    passes = cut_for_lanes(lengths, pass_bytes, num_lanes)
    return [[sequences[number] for number in numbers] for numbers in passes]


def tell_nobody(num_bytes: int) -> None:
    """Ignore a pass: the `on_pass` of callers that do not count passes."""


def _add_windows(scores: dict[int, SliceScores], place: int, found: ByteScores) -> None:
    """Add the scores of the windows of slice number `place`.

    The other slices of its text may be in other micro-batches: this one fails alone.
    """
    check_finite(found.log_prob)
    scores[place] = SliceScores(byte_scores=found)
