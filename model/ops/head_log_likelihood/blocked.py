"""Computes the next-byte head in PyTorch, in blocks whose logits stay in the CPU's cache."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from model.ops.head_log_likelihood import reference
from model.ops.head_log_likelihood.reference import HeadScores
from model.packing import ROW_STEP

# 1,024 rows of 320 float32 logits are 1.3 MB.
ROWS_PER_BLOCK = 1024


def head_log_likelihood(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, with_moments: bool, top_k: int
) -> HeadScores:
    """Compute what `reference.head_log_likelihood` defines."""
    blocks = [
        _score_block(rows, weight, ids, with_moments=with_moments, top_k=top_k)
        for rows, ids in zip(
            hidden.split(ROWS_PER_BLOCK), targets.split(ROWS_PER_BLOCK), strict=True
        )
    ]
    return HeadScores(*(_join(blocks, field.name) for field in dataclasses.fields(HeadScores)))


def _score_block(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, with_moments: bool, top_k: int
) -> HeadScores:
    """Score the rows of one block, padded to a whole step with copies of the last row."""
    num_rows, num_copies = len(hidden), -len(hidden) % ROW_STEP
    if num_copies:
        hidden = torch.cat((hidden, hidden[-1:].expand(num_copies, -1)))
        targets = torch.cat((targets, targets[-1:].expand(num_copies)))
    scores = reference.head_log_likelihood(
        hidden, weight, targets, with_moments=with_moments, top_k=top_k
    )
    return HeadScores(
        *(_first_rows(scores, field.name, num_rows) for field in dataclasses.fields(HeadScores))
    )


def _first_rows(scores: HeadScores, name: str, num_rows: int) -> Any:
    column = getattr(scores, name)
    return None if column is None else column[:num_rows]


def _join(blocks: list[HeadScores], name: str) -> Any:
    parts = [getattr(block, name) for block in blocks]
    return None if parts[0] is None else torch.cat(parts)
