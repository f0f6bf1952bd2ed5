"""Defines RMS norm (Zhang and Sennrich 2019, arXiv:1910.07467, equation 4)."""

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, *, eps: float, add_unit_offset: bool) -> Tensor:
    """Divide each row of `x` by its root mean square and scale it.

    x: [..., channels], any float type; weight: [channels]. With `add_unit_offset` the scale is
    1 + weight. Computed in float32, returned in the type of `x`.
    """
    rows = x.float()
    scale = weight.float() + 1 if add_unit_offset else weight.float()
    inverse_rms = torch.rsqrt(rows.square().mean(-1, keepdim=True) + eps)
    return (rows * inverse_rms * scale).to(x.dtype)


def add_rms_norm(
    x: Tensor, branch: Tensor | None, weight: Tensor, *, eps: float, add_unit_offset: bool
) -> tuple[Tensor, Tensor]:
    """Return `x + branch` and its normalisation; without a branch, `x` and its normalisation.

    x, branch: [..., channels] of one type; the sum is rounded to it before it is normalised.
    """
    total = x if branch is None else x + branch
    return total, rms_norm(total, weight, eps=eps, add_unit_offset=add_unit_offset)
