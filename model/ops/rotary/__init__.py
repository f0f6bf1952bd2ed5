"""Applies rotary position embedding (RoPE) to keys; attention rotates the queries that it loads."""

from torch import Tensor

from model.ops.backend import Backend
from model.ops.rotary.in_place import rotate
from model.ops.rotary.reference import rotary_frequencies, rotary_tables


def rotate_keys(k: Tensor, cos: Tensor, sin: Tensor, *, backend: Backend) -> Tensor:
    """Return k [T, H, D] as `reference.rotate` defines; k may be overwritten.

    Keys are read by the chunk summaries, by the KV cache, and again and again by attention. So they
    are rotated once, before all of them.
    """
    if backend == "triton":
        from model.ops.rotary import kernel

        return kernel.rotate_in_place(k, cos, sin)
    return rotate(k, cos, sin)


__all__ = ["rotary_frequencies", "rotary_tables", "rotate_keys"]
