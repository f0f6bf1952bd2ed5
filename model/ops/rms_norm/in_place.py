"""Computes residual addition and RMS norm in PyTorch, with few reads and writes of memory."""

import torch
from torch import Tensor


def add_rms_norm(
    x: Tensor, branch: Tensor | None, weight: Tensor, *, eps: float, add_unit_offset: bool
) -> tuple[Tensor, Tensor]:
    """Compute what `reference.add_rms_norm` defines.

    The norm reads the rows once; a square and a mean would also write them.
    """
    total = x if branch is None else x + branch
    scale = weight.float() + 1 if add_unit_offset else weight.float()
    norm = torch.linalg.vector_norm(total, dim=-1, keepdim=True, dtype=torch.float32)
    inverse_rms = torch.rsqrt(norm.square() / total.shape[-1] + eps)
    return total, (total.float() * inverse_rms).mul_(scale).to(total.dtype)
