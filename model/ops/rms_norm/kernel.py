"""Computes residual addition and RMS norm with one Triton kernel.

    sum = x + branch
    out = sum / sqrt(mean(sum^2) + eps) * scale        scale = weight, or 1 + weight

(Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.) One program holds one row in registers.
It takes 2 reads and 2 writes of the row; separate operations take 3 reads and 2 writes, and 5 more
for float32 copies. Where an int8 or fp8 product follows, the program also quantizes the row and
writes it as 8 bits alone: 1 byte per number instead of 2 written, 2 read and 1 written.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops.launching import FLOATS, Argument, check_arguments, row_config
from model.ops.quantized_rows import QuantizedRows
from model.ops.row_quantization.kernel import quantize_row_for


def add_rms_norm(
    x: Tensor, branch: Tensor | None, weight: Tensor, *, eps: float, add_unit_offset: bool
) -> tuple[Tensor, Tensor]:
    """Compute what `reference.add_rms_norm` defines; x, branch: [T, channels], contiguous.

    Raises:
        ValueError: a tensor does not fit the kernel, or has more than 16,384 channels.
    """
    normalised = torch.empty_like(x)
    options = {"eps": eps, "ADD_UNIT_OFFSET": add_unit_offset, "IS_QUANTIZED": False}
    return _launch(x, branch, weight, (normalised, None), options), normalised


def add_rms_norm_quantized(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    *,
    eps: float,
    add_unit_offset: bool,
    values_dtype: torch.dtype,
) -> tuple[Tensor, QuantizedRows]:
    """Compute `add_rms_norm`, then `quantize_rows_to(values_dtype, ...)` of the normalised rows.

    They are rounded to the type of `x` in between, as by two kernels. On a GPU the squares may be
    added in another order, which rounds a few numbers to the other side.

    Raises:
        ValueError: a tensor does not fit the kernel, or has more than 16,384 channels.
    """
    rows = QuantizedRows.empty_like(x, values_dtype)
    options = {"eps": eps, "ADD_UNIT_OFFSET": add_unit_offset, "IS_QUANTIZED": True}
    return _launch(x, branch, weight, (rows.values, rows.scales), options), rows


def _launch(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    outputs: tuple[Tensor, Tensor | None],
    options: dict[str, Any],
) -> Tensor:
    """Write the normalised rows, and their scales if they are quantized; return the sums."""
    arguments: list[Argument] = [
        ("x", x, "T channels", FLOATS),
        ("weight", weight, "channels", FLOATS),
    ]
    if branch is not None:
        arguments.append(("branch", branch, "T channels", (x.dtype,)))
    sizes = check_arguments("add_rms_norm", *arguments)
    config = row_config("add_rms_norm", sizes["channels"])
    total = x if branch is None else torch.empty_like(x)
    if sizes["T"] > 0:
        add_rms_norm_fwd_kernel[(sizes["T"],)](
            x,
            branch,
            weight,
            total,
            *outputs,
            NUM_CHANNELS=sizes["channels"],
            enable_fp_fusion=False,  # see `quantize_row`; the kernel waits for memory anyway
            **options,
            **config,
        )
    return total


@triton.jit
def add_rms_norm_fwd_kernel(
    x_ptr,  # [T, NUM_CHANNELS], as branch, total and normalised
    branch_ptr,  # may be None; total is not written then
    weight_ptr,  # [NUM_CHANNELS]
    total_ptr,
    normalised_ptr,  # of int8 or e4m3 if IS_QUANTIZED
    scales_ptr,  # [T] float32 if IS_QUANTIZED, else None
    eps,
    NUM_CHANNELS: tl.constexpr,
    ADD_UNIT_OFFSET: tl.constexpr,
    IS_QUANTIZED: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Add and normalise one row; grid: (T,)."""
    channels = tl.arange(0, BLOCK_C)
    mask = channels < NUM_CHANNELS
    token = tl.program_id(0).to(tl.int64)
    offsets = token * NUM_CHANNELS + channels
    row = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    if branch_ptr is not None:
        row += tl.load(branch_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        # The stored sum is normalised: it is rounded to its type.
        total = row.to(total_ptr.dtype.element_ty)
        tl.store(total_ptr + offsets, total, mask=mask)
        row = total.to(tl.float32)

    scale = tl.load(weight_ptr + channels, mask=mask, other=0.0).to(tl.float32)
    if ADD_UNIT_OFFSET:
        scale += 1
    inverse_rms = 1 / tl.sqrt_rn(tl.sum(row * row, axis=0) / NUM_CHANNELS + eps)
    normalised = (row * inverse_rms * scale).to(x_ptr.dtype.element_ty)
    if IS_QUANTIZED:
        # The zeros behind the row stay zeros: they do not raise its maximum.
        normalised, row_scale = quantize_row_for(normalised.to(tl.float32), normalised_ptr)
        tl.store(scales_ptr + token, row_scale)
    tl.store(normalised_ptr + offsets, normalised, mask=mask)
