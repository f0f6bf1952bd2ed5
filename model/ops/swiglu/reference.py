"""Defines SwiGLU, the gate of the feed-forward layer (Shazeer 2020, arXiv:2002.05202, eq. 6)."""

import torch.nn.functional as F  # noqa: N812 - the name by which everyone knows it
from torch import Tensor


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up, elementwise; both [..., channels]."""
    return F.silu(gate) * up
