"""Computes the int8 linear layer with two Triton kernels.

The first reads each row of activations once and writes it as int8 with its scale:

    scale = max |x| / 127        q = round(x * (1 / max |x| * 127)), halves to even

The second multiplies on int8 tensor cores and scales the int32 sums before they leave registers:

    y = (q @ weight^T) * scale * (weight_absmax / 127)

The norm and SwiGLU quantize their rows themselves (`quantize_row`), where a product follows.
Between the kernels 1 byte per activation goes through memory. The separate operations of
bitsandbytes also write and read the int32 sums, 8 bytes per result. The results have the same bits
as `reference.py` with any block sizes, since int32 sums are exact.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops.int8_linear.reference import LARGEST, MAX_IN_CHANNELS
from model.ops.int8_linear.tiles import tile_for
from model.ops.launching import FLOATS, check_arguments, gpu_capability, row_config
from model.ops.quantized_rows import QuantizedRows
from model.ops.tiled_product.kernel import (
    blocks_of_tile,
    describe_inputs,
    first_inputs,
    load_inputs,
    numbers_of_block,
    store_tile,
    tile_of_program,
)
from model.ops.tiled_product.launch import launch_product

_LARGEST = tl.constexpr(float(LARGEST))


def int8_linear(x: QuantizedRows, weight: Tensor, weight_absmax: Tensor) -> Tensor:
    """Compute what `reference.int8_linear` defines; all tensors contiguous.

    Raises:
        ValueError: a tensor does not fit the kernel.
    """
    sizes = check_arguments(
        "int8_linear",
        ("x.values", x.values, "T in", (torch.int8,)),
        ("x.scales", x.scales, "T", (torch.float32,)),
        ("weight", weight, "out in", (torch.int8,)),
        ("weight_absmax", weight_absmax, "out", (torch.float32,)),
    )
    num_rows, num_in, num_out = sizes["T"], sizes["in"], sizes["out"]
    if num_in > MAX_IN_CHANNELS:
        raise ValueError(
            f"int8_linear: rows have {num_in:,} inputs; "
            f"the limit of exact int32 sums is {MAX_IN_CHANNELS:,}"
        )
    y = torch.empty((num_rows, num_out), dtype=x.dtype, device=x.values.device)
    if num_rows == 0:
        return y
    operands, scales = (x.values, weight), (x.scales, weight_absmax)
    tile = tile_for(gpu_capability(), num_rows)
    launch_product(int8_linear_fwd_kernel, operands, scales, y, tile)
    return y


def quantize_rows(x: Tensor) -> QuantizedRows:
    """Compute what `reference.quantize_rows` defines; x: [T, channels], contiguous.

    Raises:
        ValueError: `x` does not fit the kernel, or has more than 16,384 channels.
    """
    sizes = check_arguments("quantize_rows", ("x", x, "T channels", FLOATS))
    config = row_config("quantize_rows", sizes["channels"])
    quantized = QuantizedRows.empty_like(x, torch.int8)
    if len(x) > 0:
        quantize_rows_fwd_kernel[(len(x),)](
            x,
            quantized.values,
            quantized.scales,
            NUM_CHANNELS=sizes["channels"],
            LARGEST=LARGEST,
            enable_fp_fusion=False,  # see `quantize_row`
            **config,
        )
    return quantized


@triton.jit
def quantize_rows_fwd_kernel(
    x_ptr,  # [T, NUM_CHANNELS]
    quantized_ptr,  # [T, NUM_CHANNELS] int8
    scales_ptr,  # [T] float32
    NUM_CHANNELS: tl.constexpr,
    LARGEST: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Quantize one row; grid: (T,)."""
    row = tl.program_id(0).to(tl.int64)
    channels = tl.arange(0, BLOCK_C)
    mask = channels < NUM_CHANNELS
    x = tl.load(x_ptr + row * NUM_CHANNELS + channels, mask=mask, other=0.0).to(tl.float32)
    quantized, scale = quantize_row(x, LARGEST)
    tl.store(quantized_ptr + row * NUM_CHANNELS + channels, quantized, mask=mask)
    tl.store(scales_ptr + row, scale)


@triton.jit
def quantize_row(x, LARGEST: tl.constexpr):
    """Return the float32 row `x` as int8, and its scale; zeros behind the row change nothing.

    Kernels that call it are compiled with `enable_fp_fusion=False`. A fused multiply-add rounds
    once, but the reference rounds twice: of normal bfloat16 numbers 1 in 1,500 would become the
    next int8.
    """
    # A maximum skips NaN. The sum brings NaN and infinity into the scale.
    absmax = tl.max(tl.abs(x), axis=0) + tl.sum(x * 0.0, axis=0)
    inverse = tl.where(absmax > 0, tl.div_rn(1.0, absmax) * LARGEST, 0.0)
    # Adding 1.5 * 2^23 leaves no bits for a fraction: the sum is rounded, halves to even.
    quantized = (x * inverse + 12582912.0) - 12582912.0
    return quantized.to(tl.int8), tl.div_rn(absmax, LARGEST + 0.0)


@triton.jit(do_not_specialize=["num_rows"])
def int8_linear_fwd_kernel(
    x_ptr,  # [T, NUM_IN] int8
    weight_ptr,  # [NUM_OUT, NUM_IN] int8
    scales_ptr,  # [T] float32
    weight_absmax_ptr,  # [NUM_OUT] float32
    y_ptr,  # [T, NUM_OUT]
    num_rows,
    NUM_IN: tl.constexpr,
    NUM_OUT: tl.constexpr,
    BY_DESCRIPTOR: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Multiply blocks of rows by blocks of outputs; grid: see `launch_product`."""
    if BY_DESCRIPTOR:
        x_blocks = describe_inputs(x_ptr, num_rows, NUM_IN, BLOCK_T, BLOCK_I)
        weight_blocks = describe_inputs(weight_ptr, NUM_OUT, NUM_IN, BLOCK_O, BLOCK_I)
        num_tiles = tl.cdiv(num_rows, BLOCK_T) * tl.cdiv(NUM_OUT, BLOCK_O)
        # Flattened, the loads of the next tile come before this one is stored.
        for tile in tl.range(tl.program_id(0), num_tiles, tl.num_programs(0), flatten=True):
            row_block, output_block = blocks_of_tile(tile, num_rows, NUM_OUT, BLOCK_T, BLOCK_O)
            acc = tl.zeros([BLOCK_T, BLOCK_O], tl.int32)
            for first in range(0, NUM_IN, BLOCK_I):
                x = x_blocks.load([row_block * BLOCK_T, first])
                weight = weight_blocks.load([output_block * BLOCK_O, first])
                acc = tl.dot(x, tl.trans(weight), acc, out_dtype=tl.int32)
            rows = numbers_of_block(row_block, BLOCK_T)
            outputs = numbers_of_block(output_block, BLOCK_O)
            _store_scaled(
                y_ptr, acc, scales_ptr, weight_absmax_ptr, rows, outputs, num_rows, NUM_OUT
            )
    else:
        rows, outputs = tile_of_program(num_rows, NUM_OUT, BLOCK_T, BLOCK_O)
        is_row, is_output = rows < num_rows, outputs < NUM_OUT
        x_tile_ptr = first_inputs(x_ptr, rows, NUM_IN, BLOCK_I)
        weight_tile_ptr = first_inputs(weight_ptr, outputs, NUM_IN, BLOCK_I)
        acc = tl.zeros([BLOCK_T, BLOCK_O], tl.int32)
        for first in range(0, NUM_IN, BLOCK_I):
            x = load_inputs(x_tile_ptr, is_row, first, NUM_IN, BLOCK_I)
            weight = load_inputs(weight_tile_ptr, is_output, first, NUM_IN, BLOCK_I)
            acc = tl.dot(x, tl.trans(weight), acc, out_dtype=tl.int32)
            x_tile_ptr += BLOCK_I
            weight_tile_ptr += BLOCK_I
        _store_scaled(y_ptr, acc, scales_ptr, weight_absmax_ptr, rows, outputs, num_rows, NUM_OUT)


@triton.jit
def _store_scaled(
    y_ptr, sums, scales_ptr, weight_absmax_ptr, rows, outputs, num_rows, NUM_OUT: tl.constexpr
):
    """Scale the int32 sums of a tile and store them."""
    scales = tl.load(scales_ptr + rows, mask=rows < num_rows, other=0.0)
    weight_absmax = tl.load(weight_absmax_ptr + outputs, mask=outputs < NUM_OUT, other=0.0)
    weight_scales = tl.div_rn(weight_absmax, _LARGEST)
    y = sums.to(tl.float32) * scales[:, None] * weight_scales[None, :]
    store_tile(y_ptr, y, rows, outputs, num_rows, NUM_OUT)
