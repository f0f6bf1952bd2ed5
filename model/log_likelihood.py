"""Hidden states to scores: head 0 projected in blocks, reduced at once."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.ops.head_log_likelihood import HeadScores, head_log_likelihood

# 1,024 rows of 320 float32 logits are 1.3 MB, so that they stay in a CPU's cache.
ROWS_PER_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class ByteScores:
    """What `HeadScores` holds, for N bytes, as arrays of the host; log-probabilities in nats."""

    log_prob: NDArray[np.float32]  # [N]
    rank: NDArray[np.int64]  # [N]
    entropy: NDArray[np.float32] | None  # [N]
    variance: NDArray[np.float32] | None  # [N]
    top_ids: NDArray[np.int64] | None  # [N, top_k]
    top_log_probs: NDArray[np.float32] | None  # [N, top_k]


def score_bytes(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, with_moments: bool, top_k: int
) -> ByteScores:
    """Score `targets` [N] given `hidden` [N, channels] and head 0's `weight` [V, channels]."""
    blocks = [
        head_log_likelihood(rows, weight, ids, with_moments=with_moments, top_k=top_k)
        for rows, ids in zip(
            hidden.split(ROWS_PER_BLOCK), targets.split(ROWS_PER_BLOCK), strict=True
        )
    ]
    return ByteScores(*(_gather(blocks, field.name) for field in dataclasses.fields(HeadScores)))


def _gather(blocks: list[HeadScores], name: str) -> Any:
    parts = [getattr(block, name) for block in blocks]
    return None if parts[0] is None else torch.cat(parts).cpu().numpy()
