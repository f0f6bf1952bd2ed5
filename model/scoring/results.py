"""Turns the scores of the bytes of a pass into one JSON-ready result per text.

It computes with the arrays of a whole pass; for each text it only slices them. Lists with a number
for each byte are made when they are asked for (`LazyList`), which a worker never does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.grammar.lazy_list import LazyList
from contract.grammar.vocabulary import NUM_SPECIAL_IDS
from model.errors import ScoringFailed
from model.machine.collector import collector_paused
from model.scoring.log_likelihood import ByteScores
from model.scoring.spans import Spans, bounds_of

NATS_PER_BIT = math.log(2)


@dataclass(frozen=True, slots=True)
class ScoredText:
    """A text whose bytes are scored, and its requested outputs."""

    text: bytes
    outputs: frozenset[str]
    top_k: int
    spans: Spans | None = None


def to_results(texts: Sequence[ScoredText], scores: ByteScores) -> list[dict[str, Any]]:
    """Return one result per text; `scores` holds all `texts` end to end, and none is empty.

    Always: `num_bytes`; `num_chars`, Unicode characters, null where the text is not UTF-8;
    `log_likelihood_nats`; `bits_per_byte`, the mean surprisal; `byte_perplexity`, null where it
    exceeds a float; `is_greedy`, whether every byte was the likeliest id. On request:

    * `bytes`: one number per byte in each of `log_prob_nats`, `rank` (1 = likeliest of all 320
      ids), `entropy_bits`;
    * `top_k`: per byte the likeliest ids as `[byte, log_prob_nats]`, where -64..-1 in place of a
      byte is the special id `byte + 64`;
    * `spans`: for each of `spans.bounds_of` its `start` and `end` in bytes, `num_bytes`,
      `log_likelihood_nats` and `bits_per_byte`, null where the span is empty;
    * `curvature`: null where the model was certain of every byte.

    Raises:
        ScoringFailed: a log-likelihood is not finite.
    """
    lengths = np.array([len(scored.text) for scored in texts])
    ends = np.cumsum(lengths)
    starts = ends - lengths
    # Sums in float64: those of 32,767 float32 numbers keep every digit.
    log_likelihood = np.add.reduceat(scores.log_prob.astype(np.float64), starts)
    check_finite(log_likelihood)
    nats_per_byte = -log_likelihood / lengths + 0.0  # no negative zero

    columns = zip(
        texts,
        lengths.tolist(),
        log_likelihood.tolist(),
        (nats_per_byte / NATS_PER_BIT).tolist(),
        _perplexities(nats_per_byte),
        (np.maximum.reduceat(scores.rank, starts) == 1).tolist(),
        strict=True,
    )
    results: list[dict[str, Any]] = [
        {
            "num_bytes": num_bytes,
            "num_chars": _num_chars(scored.text),
            "log_likelihood_nats": nats,
            "bits_per_byte": bits_per_byte,
            "byte_perplexity": perplexity,
            "is_greedy": is_greedy,
        }
        for scored, num_bytes, nats, bits_per_byte, perplexity, is_greedy in columns
    ]
    bounds = list(zip(starts.tolist(), ends.tolist(), strict=True))
    _add_bytes(results, texts, bounds, scores)
    _add_top_k(results, texts, lengths, scores)
    _add_spans(results, texts, bounds, scores)
    _add_curvature(results, texts, starts, log_likelihood, scores)
    return results


def make_lists(results: Sequence[dict[str, Any]]) -> None:
    """Replace each `LazyList` of `results`, or of their continuations, by a plain list."""
    with collector_paused():
        for result in results:
            for each in result.get("continuations", (result,)):
                for part in (each, each.get("bytes", {})):
                    for name, value in part.items():
                        if isinstance(value, LazyList):
                            part[name] = value.make()


def check_finite(log_prob: NDArray[np.floating[Any]]) -> None:
    """Refuse log-probabilities, or sums of them, that are not finite.

    Raises:
        ScoringFailed: one is infinite or not a number.
    """
    if not np.isfinite(log_prob).all():
        raise ScoringFailed("a log-probability of the model is not finite; check its weights")


def to_empty_result(scored: ScoredText) -> dict[str, Any]:
    """Return the result of the empty text: its sums are 0 and its means null."""
    result: dict[str, Any] = {
        "num_bytes": 0,
        "num_chars": 0,
        "log_likelihood_nats": 0.0,
        "bits_per_byte": None,
        "byte_perplexity": None,
        "is_greedy": True,
    }
    if "bytes" in scored.outputs:
        result["bytes"] = {"log_prob_nats": [], "rank": [], "entropy_bits": []}
    if scored.top_k:
        result["top_k"] = []
    if scored.spans:
        result["spans"] = _spans(scored, np.zeros(1))
    if "curvature" in scored.outputs:
        result["curvature"] = None
    return result


Bounds = list[tuple[int, int]]
Results = list[dict[str, Any]]


def _add_bytes(
    results: Results, texts: Sequence[ScoredText], bounds: Bounds, scores: ByteScores
) -> None:
    wanted = [number for number, scored in enumerate(texts) if "bytes" in scored.outputs]
    if not wanted:
        return
    assert scores.entropy is not None
    # Copies, since results may outlive the pinned memory of a pass. JSON has float64's digits.
    columns = {
        "log_prob_nats": scores.log_prob.astype(np.float64),
        "rank": scores.rank.copy(),
        "entropy_bits": (np.maximum(scores.entropy, 0) / NATS_PER_BIT).astype(np.float64),
    }
    for number in wanted:
        start, end = bounds[number]
        results[number]["bytes"] = {
            name: _lazy_column(column[start:end]) for name, column in columns.items()
        }


def _lazy_column(column: NDArray[Any]) -> LazyList:
    """Return the numbers of `column` [N], which is contiguous, as a list."""
    return LazyList(column.tolist, lambda: column)


def _add_top_k(
    results: Results, texts: Sequence[ScoredText], lengths: NDArray[np.int64], scores: ByteScores
) -> None:
    """Add the likeliest ids; texts that want the same number of them are built together."""
    top_k = np.array([scored.top_k for scored in texts])
    for number_of_ids in set(top_k.tolist()) - {0}:
        assert scores.top_ids is not None
        assert scores.top_log_probs is not None
        is_wanted = top_k == number_of_ids
        rows = slice(None) if is_wanted.all() else np.repeat(is_wanted, lengths)
        kept = rows, slice(number_of_ids)
        byte_values = scores.top_ids[kept] - NUM_SPECIAL_IDS
        log_probs = scores.top_log_probs[kept].astype(np.float64)
        ends = np.cumsum(lengths[is_wanted]).tolist()
        for number, start, end in zip(
            np.flatnonzero(is_wanted).tolist(), [0, *ends], ends, strict=False
        ):
            of_text = byte_values[start:end], log_probs[start:end]
            results[number]["top_k"] = LazyList(
                partial(_pairs, *of_text), partial(_pairs_as_tuples, *of_text)
            )


def _pairs(
    byte_values: NDArray[np.int64], log_probs: NDArray[np.float64]
) -> list[list[list[int | float]]]:
    """Return `[byte, log_prob]` for each entry of two arrays [N, k], as nested lists."""
    # NumPy makes the numbers and the lists of one array of objects without a loop in Python.
    pairs = np.empty((*byte_values.shape, 2), dtype=np.object_)
    pairs[..., 0], pairs[..., 1] = byte_values, log_probs
    with collector_paused():
        return pairs.tolist()


def _pairs_as_tuples(
    byte_values: NDArray[np.int64], log_probs: NDArray[np.float64]
) -> list[tuple[tuple[int, float], ...]]:
    """Return what `_pairs` returns as nested tuples, which take half of the time."""
    with collector_paused():
        pairs = zip(byte_values.ravel().tolist(), log_probs.ravel().tolist(), strict=True)
        return list(zip(*[pairs] * byte_values.shape[1], strict=True))


def _add_spans(
    results: Results, texts: Sequence[ScoredText], bounds: Bounds, scores: ByteScores
) -> None:
    for number, scored in enumerate(texts):
        if scored.spans is None:
            continue
        first, last = bounds[number]
        sums = np.concatenate(([0.0], scores.log_prob[first:last].astype(np.float64).cumsum()))
        results[number]["spans"] = _spans(scored, sums)


def _spans(scored: ScoredText, sums: NDArray[np.float64]) -> Results:
    """Return the scores of spans; `sums` are those of the first 0, 1, .. n log-probabilities."""
    assert scored.spans is not None
    spans = bounds_of(scored.spans, scored.text)
    starts, ends = spans.T
    nats = sums[ends] - sums[starts]
    bits_per_byte = -nats / np.maximum(ends - starts, 1) / NATS_PER_BIT + 0.0
    return [
        {
            "start": start,
            "end": end,
            "num_bytes": end - start,
            "log_likelihood_nats": log_likelihood,
            "bits_per_byte": bits if end > start else None,
        }
        for (start, end), log_likelihood, bits in zip(
            spans.tolist(), nats.tolist(), bits_per_byte.tolist(), strict=True
        )
    ]


def _add_curvature(
    results: Results,
    texts: Sequence[ScoredText],
    starts: NDArray[np.int64],
    log_likelihood: NDArray[np.float64],
    scores: ByteScores,
) -> None:
    """Add the conditional probability curvature d(x, p, p) of Fast-DetectGPT.

    Bao et al. 2024 (arXiv:2310.05130), with one model as both p and q, in the closed form of
    `get_sampling_discrepancy_analytic` (baoguangsheng/fast-detect-gpt at 018fb645):

        (sum_j log p(x_j) - sum_j E[log p]) / sqrt(sum_j Var[log p])
    """
    wanted = [number for number, scored in enumerate(texts) if "curvature" in scored.outputs]
    if not wanted:
        return
    assert scores.entropy is not None
    assert scores.variance is not None
    surplus = log_likelihood + np.add.reduceat(scores.entropy.astype(np.float64), starts)
    deviation = np.sqrt(np.add.reduceat(scores.variance.astype(np.float64), starts))
    for number in wanted:
        is_certain = deviation[number] == 0
        results[number]["curvature"] = (
            None if is_certain else float(surplus[number] / deviation[number])
        )


def _perplexities(nats_per_byte: NDArray[np.float64]) -> list[float | None]:
    with np.errstate(over="ignore"):
        perplexities = np.exp(nats_per_byte).tolist()
    return [None if math.isinf(perplexity) else perplexity for perplexity in perplexities]


def _num_chars(text: bytes) -> int | None:
    try:
        return len(text.decode())
    except UnicodeDecodeError:
        return None
