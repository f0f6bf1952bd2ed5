"""Computes rotary position embedding in PyTorch, with few reads and writes of memory."""

import torch
from torch import Tensor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Compute what `reference.rotate` defines, to the same bits; `x` does not change."""
    rows, half = x.float(), x.shape[-1] // 2
    sin = sin[:, None]  # [T, 1, D / 2]
    rotated = rows * torch.cat((cos, cos), dim=-1)[:, None]
    rotated[..., :half].addcmul_(rows[..., half:], sin, value=-1)
    rotated[..., half:].addcmul_(rows[..., :half], sin)
    return rotated.to(x.dtype)
