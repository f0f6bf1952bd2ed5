"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864, equation 34), in half rotation.

Channel i of a head forms a pair with channel i + D/2, as in Llama and NeoX:

    x_i       -> x_i cos - x_{i+D/2} sin
    x_{i+D/2} -> x_{i+D/2} cos + x_i sin
"""

import torch
from torch import Tensor


def rotary_tables(positions: Tensor, *, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return cosines and signed sines, each [T, D] float32, of `positions` [T].

    Signed: the first half, which is subtracted, is negative. Every step is float32 and torch's
    own: a frequency that differs in its last bit moves the logits by 1e-4 at position 3,000.
    """
    pairs = torch.arange(0, head_dim, 2, dtype=torch.int64, device=positions.device)
    frequencies = 1.0 / theta ** (pairs.float() / head_dim)
    angles = positions.float()[:, None] * frequencies  # [T, D / 2]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate every pair of `x` [T, H, D] by the angle of its token; float32 inside.

    cos, sin: the tables [T, D]. Returned in the type of `x`.
    """
    values = x.float()
    swapped = values.roll(x.shape[-1] // 2, dims=-1)
    return torch.addcmul(values * cos[:, None], swapped, sin[:, None]).to(x.dtype)
