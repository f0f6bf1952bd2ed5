"""Computes linear layers of floats with a Triton kernel that is batch-invariant.

Every product has the same tile, whatever its number of rows. So each number is the sum of the same
products in the same order, and no bit of a row depends on its place or on the other rows. cuBLAS
promises this for equal shapes only (He et al. 2025, "Defeating Nondeterminism in LLM Inference").
The price was not measured: with few rows most of a tile is idle, and cuBLAS knows each GPU better.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops.launching import FLOATS, check_arguments, dot_type
from model.ops.tiled_product.kernel import (
    first_inputs,
    load_inputs,
    store_tile,
    tile_of_program,
)
from model.ops.tiled_product.tiles import Tile


def tile_for(dtype: torch.dtype) -> Tile:
    """Return the tile of products in `dtype`: one for every number of rows.

    The stages fit the shared memory of an L4. float32 has smaller tiles: three products of 10 bits
    each keep its digits on tensor cores, and need registers.
    """
    if dtype == torch.float32:
        return Tile(64, 64, 32, num_warps=4, num_stages=2)
    return Tile(128, 128, 64, num_warps=8, num_stages=3)


def float_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Compute what `reference.float_linear` defines; x: [T, in], weight: [out, in], contiguous.

    Raises:
        ValueError: a tensor does not fit the kernel.
    """
    sizes = check_arguments(
        "float_linear", ("x", x, "T in", FLOATS), ("weight", weight, "out in", (x.dtype,))
    )
    num_rows, num_out = sizes["T"], sizes["out"]
    y = torch.empty((num_rows, num_out), dtype=x.dtype, device=x.device)
    if num_rows > 0:
        tile = tile_for(x.dtype)
        float_linear_fwd_kernel[(tile.num_programs(num_rows, num_out),)](
            x,
            weight,
            y,
            num_rows,
            NUM_IN=sizes["in"],
            NUM_OUT=num_out,
            DOT_TYPE=dot_type(x.dtype),
            **tile.launch_config(),
        )
    return y


@triton.jit(do_not_specialize=["num_rows"])
def float_linear_fwd_kernel(
    x_ptr,  # [T, NUM_IN]
    weight_ptr,  # [NUM_OUT, NUM_IN]
    y_ptr,  # [T, NUM_OUT]
    num_rows,
    NUM_IN: tl.constexpr,
    NUM_OUT: tl.constexpr,
    DOT_TYPE: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Multiply one block of rows by one of outputs; grid: (row blocks * output blocks,)."""
    rows, outputs = tile_of_program(num_rows, NUM_OUT, BLOCK_T, BLOCK_O)
    is_row, is_output = rows < num_rows, outputs < NUM_OUT
    x_tile_ptr = first_inputs(x_ptr, rows, NUM_IN, BLOCK_I)
    weight_tile_ptr = first_inputs(weight_ptr, outputs, NUM_IN, BLOCK_I)
    acc = tl.zeros([BLOCK_T, BLOCK_O], tl.float32)
    for first in range(0, NUM_IN, BLOCK_I):
        x = load_inputs(x_tile_ptr, is_row, first, NUM_IN, BLOCK_I).to(DOT_TYPE)
        weight = load_inputs(weight_tile_ptr, is_output, first, NUM_IN, BLOCK_I).to(DOT_TYPE)
        acc = tl.dot(x, tl.trans(weight), acc, input_precision="tf32x3")
        x_tile_ptr += BLOCK_I
        weight_tile_ptr += BLOCK_I

    store_tile(y_ptr, acc, rows, outputs, num_rows, NUM_OUT)
