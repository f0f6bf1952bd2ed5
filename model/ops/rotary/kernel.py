"""Computes rotary position embedding of keys in place with one Triton kernel.

Channels (i, i + D/2) of a head become (a cos - b sin, b cos + a sin), see `reference.py`. The
thread that owns a pair reads and writes each of its numbers once.
"""

from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops.launching import FLOATS, Argument, check_arguments

# Pairs of one program: 8 per thread. Several heads share one read of the cosines.
MAX_PAIRS = 1024


def launch_config(num_heads: int, head_dim: int) -> dict[str, int]:
    """Return the block of heads by pairs of channels that one program rotates."""
    block_p = triton.next_power_of_2(head_dim // 2)
    block_h = min(triton.next_power_of_2(num_heads), max(MAX_PAIRS // block_p, 1))
    return {"BLOCK_H": block_h, "BLOCK_P": block_p, "num_warps": 4}


def rotate_in_place(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Compute what `reference.rotate` defines of x [T, H, D] into itself; return it.

    x may be a part of a product. cos, sin: [T, D / 2], of `reference.rotary_tables`.

    Raises:
        ValueError: a tensor does not fit the kernel.
    """
    sizes = check_arguments(
        "rotate", ("x", x, "T H D", FLOATS), *table_arguments(cos, sin), rows_apart=("x",)
    )
    check_angles("rotate", sizes)
    if sizes["T"] > 0:
        config = launch_config(sizes["H"], sizes["D"])
        grid = (sizes["T"], triton.cdiv(sizes["H"], config["BLOCK_H"]))
        rotate_fwd_kernel[grid](
            x,
            cos,
            sin,
            x.stride(0),
            H=sizes["H"],
            NUM_PAIRS=sizes["D/2"],
            **config,
        )
    return x


def table_arguments(cos: Tensor, sin: Tensor) -> tuple[Argument, Argument]:
    """Return what is to be checked of the tables for T tokens with D channels per head."""
    float32 = (torch.float32,)
    return ("cos", cos, "T D/2", float32), ("sin", sin, "T D/2", float32)


def check_angles(op: str, sizes: Mapping[str, int]) -> None:
    """Check that there is one angle for each pair of channels.

    Raises:
        ValueError: there are more or fewer.
    """
    if sizes["D"] != 2 * sizes["D/2"]:
        raise ValueError(
            f"{op}: heads have {sizes['D']} channels, but there are {sizes['D/2']} angles"
        )


@triton.jit
def rotate_fwd_kernel(
    x_ptr,  # [T, H, 2 * NUM_PAIRS], x_stride from token to token
    cos_ptr,  # [T, NUM_PAIRS] float32, as sin
    sin_ptr,
    x_stride,
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
    first_ptr = x_ptr + token * x_stride + heads[:, None] * (2 * NUM_PAIRS) + pairs[None, :]
    mask = (heads[:, None] < H) & is_pair[None, :]
    first = tl.load(first_ptr, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(first_ptr + NUM_PAIRS, mask=mask, other=0.0).to(tl.float32)
    dtype = x_ptr.dtype.element_ty
    tl.store(first_ptr, (first * cos - second * sin).to(dtype), mask=mask)
    tl.store(first_ptr + NUM_PAIRS, (second * cos + first * sin).to(dtype), mask=mask)


@triton.jit
def load_rotated(
    rows_ptr, cos_ptr, sin_ptr, stride, rows, is_row, D: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Load rows of one head and rotate them; return them in their own type, zeros outside.

    rows_ptr, cos_ptr, sin_ptr: of row 0; `stride` counts from row to row. rows: [n] int32.
    """
    channels = tl.arange(0, BLOCK_D)[None, :]
    mask = is_row[:, None] & (channels < D)
    x = tl.load(rows_ptr + rows[:, None] * stride + channels, mask=mask, other=0.0)
    # Each number meets the other one of its pair: channel c + D/2, or c - D/2.
    partners = (channels + D // 2) % D
    partner = tl.load(rows_ptr + rows[:, None] * stride + partners, mask=mask, other=0.0)
    angles = rows[:, None] * (D // 2) + channels % (D // 2)
    cos = tl.load(cos_ptr + angles, mask=mask, other=0.0)
    sin = tl.load(sin_ptr + angles, mask=mask, other=0.0)
    turned = partner.to(tl.float32) * tl.where(channels < D // 2, -sin, sin)
    return (x.to(tl.float32) * cos + turned).to(x.dtype)
