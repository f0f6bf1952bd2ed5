"""Computes rotary position embedding of queries and keys in place with one Triton kernel.

Channels (i, i + D/2) of a head become (a cos - b sin, b cos + a sin), see `reference.py`. The
thread that owns a pair reads and writes each of its numbers once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops.launching import FLOATS, check_arguments

# Pairs of one program: 8 per thread. Several heads share one read of the cosines.
MAX_PAIRS = 1024


def launch_config(num_heads: int, head_dim: int) -> dict[str, int]:
    """Return the block of heads by pairs of channels that one program rotates."""
    block_p = triton.next_power_of_2(head_dim // 2)
    block_h = min(triton.next_power_of_2(num_heads), max(MAX_PAIRS // block_p, 1))
    return {"BLOCK_H": block_h, "BLOCK_P": block_p, "num_warps": 4}


def rotate_in_place(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Compute what `reference.rotate` defines of q and k [T, H, D] into themselves; return them.

    q and k may be parts of one product. cos, sin: [T, D / 2], of `reference.rotary_tables`.

    Raises:
        ValueError: a tensor does not fit the kernel.
    """
    sizes = check_arguments(
        "rotate",
        ("q", q, "T H D", FLOATS),
        ("k", k, "T H D", (q.dtype,)),
        ("cos", cos, "T D/2", (torch.float32,)),
        ("sin", sin, "T D/2", (torch.float32,)),
        rows_apart=("q", "k"),
    )
    if sizes["D"] != 2 * sizes["D/2"]:
        raise ValueError(
            f"rotate: heads have {sizes['D']} channels, but there are {sizes['D/2']} angles"
        )
    if q is k:
        raise ValueError(
            "rotate: q and k are one tensor, which would be rotated twice; pass a copy"
        )
    if sizes["T"] > 0:
        config = launch_config(sizes["H"], sizes["D"])
        grid = (sizes["T"], triton.cdiv(sizes["H"], config["BLOCK_H"]))
        rotate_fwd_kernel[grid](
            q,
            k,
            cos,
            sin,
            q.stride(0),
            k.stride(0),
            H=sizes["H"],
            NUM_PAIRS=sizes["D/2"],
            **config,
        )
    return q, k


@triton.jit
def rotate_fwd_kernel(
    q_ptr,  # [T, H, 2 * NUM_PAIRS], q_stride from token to token
    k_ptr,  # [T, H, 2 * NUM_PAIRS], k_stride from token to token
    cos_ptr,  # [T, NUM_PAIRS] float32, as sin
    sin_ptr,
    q_stride,
    k_stride,
    H: tl.constexpr,
    NUM_PAIRS: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Rotate some heads of one token; grid: (T, blocks of heads)."""
    token = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    pairs = tl.arange(0, BLOCK_P)
    is_pair = pairs < NUM_PAIRS
    angles = token * NUM_PAIRS + pairs
    cos = tl.load(cos_ptr + angles, mask=is_pair, other=0.0)[None, :]
    sin = tl.load(sin_ptr + angles, mask=is_pair, other=0.0)[None, :]
    offsets = heads[:, None] * (2 * NUM_PAIRS) + pairs[None, :]
    mask = (heads[:, None] < H) & is_pair[None, :]
    _rotate_block(q_ptr + token * q_stride + offsets, cos, sin, mask, NUM_PAIRS)
    _rotate_block(k_ptr + token * k_stride + offsets, cos, sin, mask, NUM_PAIRS)


@triton.jit
def _rotate_block(first_ptr, cos, sin, mask, NUM_PAIRS: tl.constexpr):
    """Rotate the pairs whose first channels are at `first_ptr` [BLOCK_H, BLOCK_P]."""
    first = tl.load(first_ptr, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(first_ptr + NUM_PAIRS, mask=mask, other=0.0).to(tl.float32)
    dtype = first_ptr.dtype.element_ty
    tl.store(first_ptr, (first * cos - second * sin).to(dtype), mask=mask)
    tl.store(first_ptr + NUM_PAIRS, (second * cos + first * sin).to(dtype), mask=mask)
