"""The next-byte head by PyTorch, over blocks of rows whose logits stay in a CPU's cache."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from model.ops.head_log_likelihood import reference
from model.ops.head_log_likelihood.reference import HeadScores

# 1,024 rows of 320 float32 logits are 1.3 MB.
ROWS_PER_BLOCK = 1024


def head_log_likelihood(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, with_moments: bool, top_k: int
) -> HeadScores:
    """Compute what `reference.head_log_likelihood` defines."""
    blocks = [
        reference.head_log_likelihood(rows, weight, ids, with_moments=with_moments, top_k=top_k)
        for rows, ids in zip(
            hidden.split(ROWS_PER_BLOCK), targets.split(ROWS_PER_BLOCK), strict=True
        )
    ]
    return HeadScores(*(_join(blocks, field.name) for field in dataclasses.fields(HeadScores)))


def _join(blocks: list[HeadScores], name: str) -> Any:
    parts = [getattr(block, name) for block in blocks]
    return None if parts[0] is None else torch.cat(parts)
