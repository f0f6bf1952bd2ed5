"""Computes SwiGLU with one Triton kernel.

    out = gate / (1 + exp(-gate)) * up                (Shazeer 2020, arXiv:2002.05202, equation 6)

It takes 2 reads and 1 write; two operations take 3 and 2. It computes in float32 and rounds once;
the reference also rounds silu(gate). Where an int8 or fp8 product follows, a kernel with one
program per row also quantizes the row, and writes it as 8 bits alone.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops.launching import FLOATS, check_arguments, row_config
from model.ops.quantized_rows import QuantizedRows
from model.ops.row_quantization.kernel import quantize_row_for

# 8 numbers per thread, 16 bytes in bfloat16: the widest load of a GPU.
BLOCK_C = 1024


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Compute what `reference.swiglu` defines, contiguous.

    gate, up: [T, channels], parts of one product or contiguous.

    Raises:
        ValueError: a tensor does not fit the kernel.
    """
    num_tokens, num_channels = _check("swiglu", gate, up)
    out = torch.empty((num_tokens, num_channels), dtype=gate.dtype, device=gate.device)
    if num_tokens > 0:
        grid = (num_tokens, triton.cdiv(num_channels, BLOCK_C))
        swiglu_fwd_kernel[grid](
            gate,
            up,
            out,
            gate.stride(0),
            up.stride(0),
            NUM_CHANNELS=num_channels,
            BLOCK_C=BLOCK_C,
            num_warps=4,
        )
    return out


def swiglu_quantized(gate: Tensor, up: Tensor, *, values_dtype: torch.dtype) -> QuantizedRows:
    """Compute `swiglu`, then `quantize_rows_to(values_dtype, ...)` of its rows, with the same bits.

    Raises:
        ValueError: a tensor does not fit the kernel, or has more than 16,384 channels.
    """
    num_tokens, num_channels = _check("swiglu_quantized", gate, up)
    config = row_config("swiglu_quantized", num_channels)
    rows = QuantizedRows.empty_like(gate, values_dtype)
    if num_tokens > 0:
        swiglu_quantized_fwd_kernel[(num_tokens,)](
            gate,
            up,
            rows.values,
            rows.scales,
            gate.stride(0),
            up.stride(0),
            NUM_CHANNELS=num_channels,
            enable_fp_fusion=False,  # see `quantize_row`
            **config,
        )
    return rows


def _check(op: str, gate: Tensor, up: Tensor) -> tuple[int, int]:
    """Return the numbers of tokens and of channels."""
    sizes = check_arguments(
        op,
        ("gate", gate, "T channels", FLOATS),
        ("up", up, "T channels", (gate.dtype,)),
        rows_apart=("gate", "up"),
    )
    return sizes["T"], sizes["channels"]


@triton.jit
def swiglu_fwd_kernel(
    gate_ptr,  # [T, NUM_CHANNELS], gate_stride from row to row
    up_ptr,  # [T, NUM_CHANNELS], up_stride from row to row
    out_ptr,  # [T, NUM_CHANNELS]
    gate_stride,
    up_stride,
    NUM_CHANNELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Gate part of one row; grid: (T, parts)."""
    token = tl.program_id(0).to(tl.int64)
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = channels < NUM_CHANNELS
    gate = tl.load(gate_ptr + token * gate_stride + channels, mask=mask, other=0.0)
    up = tl.load(up_ptr + token * up_stride + channels, mask=mask, other=0.0)
    out = _gated(gate.to(tl.float32), up.to(tl.float32))
    tl.store(out_ptr + token * NUM_CHANNELS + channels, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def swiglu_quantized_fwd_kernel(
    gate_ptr,  # [T, NUM_CHANNELS], gate_stride from row to row
    up_ptr,  # [T, NUM_CHANNELS], up_stride from row to row
    values_ptr,  # [T, NUM_CHANNELS] int8 or e4m3
    scales_ptr,  # [T] float32
    gate_stride,
    up_stride,
    NUM_CHANNELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Gate and quantize one row; grid: (T,)."""
    token = tl.program_id(0).to(tl.int64)
    channels = tl.arange(0, BLOCK_C)
    mask = channels < NUM_CHANNELS
    gate = tl.load(gate_ptr + token * gate_stride + channels, mask=mask, other=0.0)
    up = tl.load(up_ptr + token * up_stride + channels, mask=mask, other=0.0)
    out = _gated(gate.to(tl.float32), up.to(tl.float32)).to(gate_ptr.dtype.element_ty)
    values, scale = quantize_row_for(out.to(tl.float32), values_ptr)
    tl.store(values_ptr + token * NUM_CHANNELS + channels, values, mask=mask)
    tl.store(scales_ptr + token, scale)


@triton.jit
def _gated(gate, up):
    return gate / (1 + tl.exp(-gate)) * up
