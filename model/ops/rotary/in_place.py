"""Computes rotary position embedding in PyTorch, with few reads and writes of memory."""

import torch
from torch import Tensor


def rotate_queries_and_keys(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute `reference.rotate` of each to the same bits; `q` and `k` do not change."""
    cos, sin = torch.cat((cos, cos), dim=-1)[:, None], sin[:, None]  # [T, 1, D], [T, 1, D / 2]
    return _rotate(q, cos, sin), _rotate(k, cos, sin)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rows, half = x.float(), x.shape[-1] // 2
    rotated = rows * cos
    rotated[..., :half].addcmul_(rows[..., half:], sin, value=-1)
    rotated[..., half:].addcmul_(rows[..., :half], sin)
    return rotated.to(x.dtype)
