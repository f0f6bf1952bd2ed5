"""Computes residual addition and RMS norm with one Triton kernel.

    sum = x + branch
    out = sum / sqrt(mean(sum^2) + eps) * scale        scale = weight, or 1 + weight

(Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.) One program holds one row in registers.
It takes 2 reads and 2 writes of the row; separate operations take 3 reads and 2 writes, and 5 more
for float32 copies.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops.launching import FLOATS, Argument, check_arguments, row_config


def add_rms_norm(
    x: Tensor, branch: Tensor | None, weight: Tensor, *, eps: float, add_unit_offset: bool
) -> tuple[Tensor, Tensor]:
    """Compute what `reference.add_rms_norm` defines; x, branch: [T, channels], contiguous.

    Raises:
        ValueError: a tensor does not fit the kernel, or has more than 16,384 channels.
    """
    arguments: list[Argument] = [
        ("x", x, "T channels", FLOATS),
        ("weight", weight, "channels", FLOATS),
    ]
    if branch is not None:
        arguments.append(("branch", branch, "T channels", (x.dtype,)))
    sizes = check_arguments("add_rms_norm", *arguments)
    config = row_config("add_rms_norm", sizes["channels"])
    total = x if branch is None else torch.empty_like(x)
    normalised = torch.empty_like(x)
    if sizes["T"] > 0:
        add_rms_norm_fwd_kernel[(sizes["T"],)](
            x,
            x if branch is None else branch,
            weight,
            total,
            normalised,
            eps,
            NUM_CHANNELS=sizes["channels"],
            HAS_BRANCH=branch is not None,
            ADD_UNIT_OFFSET=add_unit_offset,
            **config,
        )
    return total, normalised


@triton.jit
def add_rms_norm_fwd_kernel(
    x_ptr,  # [T, NUM_CHANNELS], as branch, total and normalised
    branch_ptr,  # not read without HAS_BRANCH
    weight_ptr,  # [NUM_CHANNELS]
    total_ptr,  # not written without HAS_BRANCH
    normalised_ptr,
    eps,
    NUM_CHANNELS: tl.constexpr,
    HAS_BRANCH: tl.constexpr,
    ADD_UNIT_OFFSET: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Add and normalise one row; grid: (T,)."""
    channels = tl.arange(0, BLOCK_C)
    mask = channels < NUM_CHANNELS
    offsets = tl.program_id(0).to(tl.int64) * NUM_CHANNELS + channels
    row = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    if HAS_BRANCH:
        row += tl.load(branch_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        # The stored sum is normalised: it is rounded to its type.
        total = row.to(total_ptr.dtype.element_ty)
        tl.store(total_ptr + offsets, total, mask=mask)
        row = total.to(tl.float32)

    scale = tl.load(weight_ptr + channels, mask=mask, other=0.0).to(tl.float32)
    if ADD_UNIT_OFFSET:
        scale += 1
    inverse_rms = 1 / tl.sqrt_rn(tl.sum(row * row, axis=0) / NUM_CHANNELS + eps)
    normalised = (row * inverse_rms * scale).to(normalised_ptr.dtype.element_ty)
    tl.store(normalised_ptr + offsets, normalised, mask=mask)
