"""Applies rotary position embedding (RoPE) to queries and keys."""

from torch import Tensor

from model.ops.backend import Backend
from model.ops.rotary import in_place
from model.ops.rotary.reference import rotary_tables


def rotate_queries_and_keys(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *, backend: Backend
) -> tuple[Tensor, Tensor]:
    """Return q and k [T, H, D] as `reference.rotate` defines; both may be overwritten."""
    if backend == "triton":
        from model.ops.rotary import kernel

        return kernel.rotate_in_place(q, k, cos, sin)
    return in_place.rotate_queries_and_keys(q, k, cos, sin)


__all__ = ["rotary_tables", "rotate_queries_and_keys"]
