"""Scores bytes by hidden states: log-probability (negative surprisal), rank, entropy, top k."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

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


def score_bytes(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    with_moments: bool,
    top_k: int,
    backend: Backend,
) -> ByteScores:
    """Score `targets` [N] given `hidden` [N, channels] and head 0's `weight` [V, channels]."""
    scores = head_log_likelihood(
        hidden, weight, targets, with_moments=with_moments, top_k=top_k, backend=backend
    )
    return ByteScores(*(_on_host(scores, field.name) for field in dataclasses.fields(HeadScores)))


def join_scores(pieces: Sequence[ByteScores]) -> ByteScores:
    """Return the scores of `pieces`, end to end; all have the same outputs."""
    if len(pieces) == 1:
        return pieces[0]
    return ByteScores(*(_joined(pieces, field.name) for field in dataclasses.fields(ByteScores)))


def _joined(pieces: Sequence[ByteScores], name: str) -> Any:
    columns = [getattr(piece, name) for piece in pieces]
    return None if columns[0] is None else np.concatenate(columns)


def _on_host(scores: HeadScores, name: str) -> Any:
    tensor = getattr(scores, name)
    return None if tensor is None else tensor.cpu().numpy()
