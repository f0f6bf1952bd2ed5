"""Scores bytes by hidden states: log-probability (negative surprisal), rank, entropy, top k."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.evabyte.transfers import Fetch
from model.ops.backend import Backend
from model.ops.head_log_likelihood import HeadScores, head_log_likelihood


@dataclass(frozen=True, slots=True)
class ByteScores:
    """The values of `HeadScores` for N bytes as NumPy arrays; log-probabilities in nats."""

    log_prob: NDArray[np.float32]  # [N]
    rank: NDArray[np.int64]  # [N]
    entropy: NDArray[np.float32] | None  # [N]
    variance: NDArray[np.float32] | None  # [N]
    top_ids: NDArray[np.int64] | None  # [N, top_k]
    top_log_probs: NDArray[np.float32] | None  # [N, top_k]


class PendingScores:
    """The scores of some bytes, which a device may still be computing."""

    def __init__(self, scores: HeadScores) -> None:
        """Begin to copy `scores` to the host."""
        columns = {field.name: getattr(scores, field.name) for field in fields(scores)}
        present = {name: column for name, column in columns.items() if column is not None}
        self._names = list(present)
        self._fetch = Fetch(list(present.values()))

    def wait(self) -> ByteScores:
        """Return the scores once they are on the host."""
        columns: dict[str, Any] = dict.fromkeys(field.name for field in fields(ByteScores))
        return ByteScores(**columns | dict(zip(self._names, self._fetch.wait(), strict=True)))


def begin_scoring(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    with_moments: bool,
    top_k: int,
    backend: Backend,
) -> PendingScores:
    """Begin to score `targets` [N] given `hidden` [N, channels] and head 0's `weight`.

    `weight` is [V, channels]. On a GPU this returns before the scores are computed.
    """
    return PendingScores(
        head_log_likelihood(
            hidden, weight, targets, with_moments=with_moments, top_k=top_k, backend=backend
        )
    )


def join_scores(pieces: Sequence[ByteScores]) -> ByteScores:
    """Return the scores of `pieces`, end to end; all have the same outputs."""
    if len(pieces) == 1:
        return pieces[0]
    return ByteScores(*(_joined(pieces, field.name) for field in fields(ByteScores)))


def _joined(pieces: Sequence[ByteScores], name: str) -> Any:
    columns = [getattr(piece, name) for piece in pieces]
    return None if columns[0] is None else np.concatenate(columns)
