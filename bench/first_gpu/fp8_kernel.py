"""Quantizes rows to fp8 (e4m3) with a Triton kernel; importing this module imports Triton."""

import triton
import triton.language as tl


@triton.jit
def quantize_rows_fwd_kernel(
    x_ptr,  # [T, NUM_CHANNELS]
    rows_ptr,  # [T, NUM_CHANNELS] e4m3
    scales_ptr,  # [T] float32
    NUM_CHANNELS: tl.constexpr,
    LARGEST: tl.constexpr,
    SMALLEST_ABSMAX: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Quantize one row; grid: (T,)."""
    row = tl.program_id(0).to(tl.int64)
    channels = tl.arange(0, BLOCK_C)
    mask = channels < NUM_CHANNELS
    x = tl.load(x_ptr + row * NUM_CHANNELS + channels, mask=mask, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(x), axis=0), SMALLEST_ABSMAX) / LARGEST
    tl.store(rows_ptr + row * NUM_CHANNELS + channels, (x / scale).to(tl.float8e4nv), mask=mask)
    tl.store(scales_ptr + row, scale)
