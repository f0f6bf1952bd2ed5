"""Computes the fp8 linear layer with two Triton kernels.

The first reads each row of activations once and writes it as e4m3 with its scale:

    absmax = max(max |x|, 2^-100)      scale = absmax / 448      q = e4m3(x * (1 / absmax * 448))

The second multiplies on fp8 tensor cores and scales the sums before they leave registers:

    y = (q @ weight^T) * scale * weight_scale

The norm and SwiGLU quantize their rows themselves (`quantize_row`), where a product follows. Rows
and scales have the bits of `reference.py`.

Sums differ from the exact ones of the reference. The tensor cores of compute capability 8.9 and 9.0
add fp8 products with about 14 bits (DeepSeek-AI 2024, arXiv:2412.19437, section 3.3.2). So 128
products at most are added there, and these partial sums in float32.

Each output is summed in one fixed order, whatever the tile and the number of rows. PyTorch's
`torch._scaled_mm` chooses another kernel for another number of rows. That is why this is the
default: as far as documents say, the bits of a row do not depend on the other rows.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops.fp8_linear.reference import (
    FP8,
    LARGEST,
    MAX_IN_CHANNELS,
    SMALLEST_ABSMAX,
)
from model.ops.fp8_linear.tiles import tile_for
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
_SMALLEST_ABSMAX = tl.constexpr(SMALLEST_ABSMAX)
# e4m3 has numbers below 2^-6 without a leading 1, 2^-9 apart.
_SMALLEST_POWER = tl.constexpr(2.0**-6)
# Added to a number and subtracted again, it rounds to an eighth of a power of two: 1.5 * 2^23 / 8.
_ROUNDING = tl.constexpr(1.5 * 2**20)
_EXPONENT_BITS = tl.constexpr(0x7F800000)


def fp8_linear(x: QuantizedRows, weight: Tensor, weight_scales: Tensor) -> Tensor:
    """Compute what `reference.fp8_linear` defines; all tensors contiguous.

    Raises:
        ValueError: a tensor does not fit the kernel.
    """
    sizes = check_arguments(
        "fp8_linear",
        ("x.values", x.values, "T in", (FP8,)),
        ("x.scales", x.scales, "T", (torch.float32,)),
        ("weight", weight, "out in", (FP8,)),
        ("weight_scales", weight_scales, "out", (torch.float32,)),
    )
    num_rows, num_in, num_out = sizes["T"], sizes["in"], sizes["out"]
    if num_in > MAX_IN_CHANNELS:
        raise ValueError(
            f"fp8_linear: rows have {num_in:,} inputs; the limit of the definition's exact sums "
            f"is {MAX_IN_CHANNELS:,}"
        )
    y = torch.empty((num_rows, num_out), dtype=x.dtype, device=x.values.device)
    if num_rows == 0:
        return y
    operands, scales = (x.values, weight), (x.scales, weight_scales)
    tile = tile_for(gpu_capability(), num_rows)
    launch_product(fp8_linear_fwd_kernel, operands, scales, y, tile)
    return y


def quantize_rows(x: Tensor) -> QuantizedRows:
    """Compute what `reference.quantize_rows` defines; x: [T, channels], contiguous.

    Raises:
        ValueError: `x` does not fit the kernel, or has more than 16,384 channels.
    """
    sizes = check_arguments("quantize_rows", ("x", x, "T channels", FLOATS))
    config = row_config("quantize_rows", sizes["channels"])
    quantized = QuantizedRows.empty_like(x, FP8)
    if len(x) > 0:
        quantize_rows_fp8_fwd_kernel[(len(x),)](
            x,
            quantized.values,
            quantized.scales,
            NUM_CHANNELS=sizes["channels"],
            enable_fp_fusion=False,  # see `quantize_row`
            **config,
        )
    return quantized


@triton.jit
def quantize_rows_fp8_fwd_kernel(
    x_ptr,  # [T, NUM_CHANNELS]
    quantized_ptr,  # [T, NUM_CHANNELS] e4m3
    scales_ptr,  # [T] float32
    NUM_CHANNELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Quantize one row; grid: (T,)."""
    row = tl.program_id(0).to(tl.int64)
    channels = tl.arange(0, BLOCK_C)
    mask = channels < NUM_CHANNELS
    x = tl.load(x_ptr + row * NUM_CHANNELS + channels, mask=mask, other=0.0).to(tl.float32)
    quantized, scale = quantize_row(x)
    tl.store(quantized_ptr + row * NUM_CHANNELS + channels, quantized, mask=mask)
    tl.store(scales_ptr + row, scale)


@triton.jit
def quantize_row(x):
    """Return the float32 row `x` as e4m3, and its scale; zeros behind the row change nothing.

    Kernels that call it are compiled with `enable_fp_fusion=False`: a fused multiply-add rounds
    once, but the reference rounds twice.
    """
    # A maximum skips NaN. The sum brings NaN and infinity into the scale.
    absmax = tl.maximum(tl.max(tl.abs(x), axis=0), _SMALLEST_ABSMAX) + tl.sum(x * 0.0, axis=0)
    scaled = x * (tl.div_rn(1.0, absmax) * _LARGEST)
    # Rounded in float32, so that the conversion is exact: Triton's interpreter does not round.
    power = (scaled.to(tl.int32, bitcast=True) & _EXPONENT_BITS).to(tl.float32, bitcast=True)
    rounding = tl.maximum(power, _SMALLEST_POWER) * _ROUNDING
    quantized = (scaled + rounding) - rounding
    return quantized.to(tl.float8e4nv), tl.div_rn(absmax, _LARGEST)


@triton.jit(do_not_specialize=["num_rows"])
def fp8_linear_fwd_kernel(
    x_ptr,  # [T, NUM_IN] e4m3
    weight_ptr,  # [NUM_OUT, NUM_IN] e4m3
    scales_ptr,  # [T] float32
    weight_scales_ptr,  # [NUM_OUT] float32
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
            acc = tl.zeros([BLOCK_T, BLOCK_O], tl.float32)
            for first in range(0, NUM_IN, BLOCK_I):
                x = x_blocks.load([row_block * BLOCK_T, first])
                weight = weight_blocks.load([output_block * BLOCK_O, first])
                acc += _products_of_step(x, weight)
            rows = numbers_of_block(row_block, BLOCK_T)
            outputs = numbers_of_block(output_block, BLOCK_O)
            _store_scaled(
                y_ptr, acc, scales_ptr, weight_scales_ptr, rows, outputs, num_rows, NUM_OUT
            )
    else:
        rows, outputs = tile_of_program(num_rows, NUM_OUT, BLOCK_T, BLOCK_O)
        is_row, is_output = rows < num_rows, outputs < NUM_OUT
        x_tile_ptr = first_inputs(x_ptr, rows, NUM_IN, BLOCK_I)
        weight_tile_ptr = first_inputs(weight_ptr, outputs, NUM_IN, BLOCK_I)
        acc = tl.zeros([BLOCK_T, BLOCK_O], tl.float32)
        for first in range(0, NUM_IN, BLOCK_I):
            x = load_inputs(x_tile_ptr, is_row, first, NUM_IN, BLOCK_I)
            weight = load_inputs(weight_tile_ptr, is_output, first, NUM_IN, BLOCK_I)
            acc += _products_of_step(x, weight)
            x_tile_ptr += BLOCK_I
            weight_tile_ptr += BLOCK_I
        _store_scaled(y_ptr, acc, scales_ptr, weight_scales_ptr, rows, outputs, num_rows, NUM_OUT)


@triton.jit
def _products_of_step(x, weight):
    """Return the sums of the products of one step of inputs, in float32.

    With its limit, this sum starts at zero: otherwise Triton would pass the sums of earlier steps
    to the instruction.
    """
    return tl.dot(x, tl.trans(weight), max_num_imprecise_acc=x.shape[1])


@triton.jit
def _store_scaled(
    y_ptr, sums, scales_ptr, weight_scales_ptr, rows, outputs, num_rows, NUM_OUT: tl.constexpr
):
    """Scale the sums of a tile and store them."""
    scales = tl.load(scales_ptr + rows, mask=rows < num_rows, other=0.0)
    weight_scales = tl.load(weight_scales_ptr + outputs, mask=outputs < NUM_OUT, other=0.0)
    store_tile(
        y_ptr, sums * scales[:, None] * weight_scales[None, :], rows, outputs, num_rows, NUM_OUT
    )
