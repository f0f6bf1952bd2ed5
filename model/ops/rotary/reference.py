"""Defines rotary position embedding (Su et al. 2021, arXiv:2104.09864, equation 34).

Channel i of a head forms a pair with channel i + D/2 (half rotation), as in Llama and NeoX.
"""

import torch
from torch import Tensor


def rotary_frequencies(*, head_dim: int, theta: float) -> Tensor:
    """Return the angle per position of each pair of channels, [head_dim / 2] float32 on the host.

    Powers are computed in float32 on the CPU for any device, as in the authors' code. A frequency
    that differs in its last bit moves the logits by 1e-4 at position 3,000.
    """
    pairs = torch.arange(0, head_dim, 2, dtype=torch.int64, device="cpu")
    return 1.0 / theta ** (pairs.float() / head_dim)


def rotary_tables(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, each [T, D / 2] float32, of `positions` [T] int64.

    frequencies: those of `rotary_frequencies`, on the device of `positions`.
    """
    angles = positions.float()[:, None] * frequencies
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate every pair of `x` [T, H, D] by the angle of its token; float32 inside.

    cos, sin: [T, D / 2] float32. Returned in the type of `x`.
    """
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]  # [T, 1, D / 2]
    rotated_first = torch.addcmul(first * cos, second, sin, value=-1)
    rotated_second = torch.addcmul(second * cos, first, sin)
    return torch.cat((rotated_first, rotated_second), dim=-1).to(x.dtype)
