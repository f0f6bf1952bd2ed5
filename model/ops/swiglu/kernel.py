"""Computes SwiGLU with one Triton kernel.

    out = gate / (1 + exp(-gate)) * up                (Shazeer 2020, arXiv:2002.05202, equation 6)

It takes 2 reads and 1 write; two operations take 3 and 2. It computes in float32 and rounds once;
the reference also rounds silu(gate).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops.launching import FLOATS, check_arguments

# 8 numbers per thread, 16 bytes in bfloat16: the widest load of a GPU.
BLOCK_N = 1024


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Compute what `reference.swiglu` defines; gate, up: [T, channels], contiguous.

    Raises:
        ValueError: a tensor does not fit the kernel.
    """
    check_arguments(
        "swiglu",
        ("gate", gate, "T channels", FLOATS),
        ("up", up, "T channels", (gate.dtype,)),
    )
    out = torch.empty_like(gate)
    num_elements = gate.numel()
    if num_elements > 0:
        grid = (triton.cdiv(num_elements, BLOCK_N),)
        swiglu_fwd_kernel[grid](gate, up, out, num_elements, BLOCK_N=BLOCK_N, num_warps=4)
    return out


@triton.jit
def swiglu_fwd_kernel(gate_ptr, up_ptr, out_ptr, num_elements, BLOCK_N: tl.constexpr):
    """Gate one run of elements; grid: (runs,)."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = offsets < num_elements
    gate = tl.load(gate_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    out = gate / (1 + tl.exp(-gate)) * up
    tl.store(out_ptr + offsets, out.to(out_ptr.dtype.element_ty), mask=mask)
