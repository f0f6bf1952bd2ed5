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

from model.ops.int8_linear.kernel import block_of_program
from model.ops.launching import FLOATS, check_arguments, dot_type


def launch_config(dtype: torch.dtype) -> dict[str, int]:
    """Return the block of rows by outputs by inputs: one for every number of rows.

    The stages fit the shared memory of an L4. float32 has smaller tiles: three products of 10 bits
    each keep its digits on tensor cores, and need registers.
    """
    if dtype == torch.float32:
        return {"BLOCK_T": 64, "BLOCK_O": 64, "BLOCK_I": 32, "num_warps": 4, "num_stages": 2}
    return {"BLOCK_T": 128, "BLOCK_O": 128, "BLOCK_I": 64, "num_warps": 8, "num_stages": 3}


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
        config = launch_config(x.dtype)
        num_row_blocks = triton.cdiv(num_rows, config["BLOCK_T"])
        num_blocks = num_row_blocks * triton.cdiv(num_out, config["BLOCK_O"])
        float_linear_fwd_kernel[(num_blocks,)](
            x,
            weight,
            y,
            num_rows,
            NUM_IN=sizes["in"],
            NUM_OUT=num_out,
            DOT_TYPE=dot_type(x.dtype),
            **config,
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
    num_row_blocks, num_output_blocks = tl.cdiv(num_rows, BLOCK_T), tl.cdiv(NUM_OUT, BLOCK_O)
    row_block, output_block = block_of_program(num_row_blocks, num_output_blocks)
    rows = row_block.to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    outputs = output_block.to(tl.int64) * BLOCK_O + tl.arange(0, BLOCK_O)
    inputs = tl.arange(0, BLOCK_I)
    is_row, is_output = rows < num_rows, outputs < NUM_OUT
    x_tile_ptr = x_ptr + rows[:, None] * NUM_IN + inputs[None, :]
    weight_tile_ptr = weight_ptr + outputs[:, None] * NUM_IN + inputs[None, :]
    acc = tl.zeros([BLOCK_T, BLOCK_O], tl.float32)
    for first in range(0, NUM_IN, BLOCK_I):
        x_mask, weight_mask = is_row[:, None], is_output[:, None]
        if NUM_IN % BLOCK_I != 0:
            is_input = (inputs < NUM_IN - first)[None, :]
            x_mask, weight_mask = x_mask & is_input, weight_mask & is_input
        x = tl.load(x_tile_ptr, mask=x_mask, other=0.0).to(DOT_TYPE)
        weight = tl.load(weight_tile_ptr, mask=weight_mask, other=0.0).to(DOT_TYPE)
        acc = tl.dot(x, tl.trans(weight), acc, input_precision="tf32x3")
        x_tile_ptr += BLOCK_I
        weight_tile_ptr += BLOCK_I

    tl.store(
        y_ptr + rows[:, None] * NUM_OUT + outputs[None, :],
        acc.to(y_ptr.dtype.element_ty),
        mask=is_row[:, None] & is_output[None, :],
    )
