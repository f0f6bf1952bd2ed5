"""Multiplies fp8 rows (e4m3), one scale per row of weights and activations, by PyTorch's product.

It finds the machine's ceiling for fp8 and the model's speed with it.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

LARGEST = 448.0  # of e4m3
SMALLEST_ABSMAX = 1e-12  # a row of zeros keeps a scale that divides


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return `x` [T, channels] as e4m3, and the scale of each row, [T, 1] float32."""
    if x.is_cuda:
        return _quantize_by_kernel(x)
    scales = x.float().abs().amax(1, keepdim=True).clamp(min=SMALLEST_ABSMAX) / LARGEST
    return (x / scales).to(torch.float8_e4m3fn), scales


def multiply(
    x: Tensor, x_scales: Tensor, weight: Tensor, weight_scales: Tensor, dtype: torch.dtype
) -> Tensor:
    """Return x [T, in] times weight [out, in] transposed, scaled; scales: [T, 1] and [1, out]."""
    if not x.is_cuda:
        return ((x.float() * x_scales) @ (weight.float() * weight_scales.t()).t()).to(dtype)
    return torch._scaled_mm(
        x,
        weight.t(),
        scale_a=x_scales,
        scale_b=weight_scales,
        out_dtype=dtype,
        use_fast_accum=True,
    )


class SharedRows:
    """Quantizes rows once for all layers that read the same tensor one after the other."""

    def __init__(self) -> None:
        self._rows: Tensor | None = None
        self._quantized: tuple[Tensor, Tensor] | None = None

    def quantized(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return `quantize_rows` of `x`."""
        if self._quantized is None or self._rows is not x:
            self._rows, self._quantized = x, quantize_rows(x)
        return self._quantized


class Fp8Linear(torch.nn.Module):
    """A linear layer whose weight is quantized when it is made, and its input at each product."""

    scales: Tensor

    def __init__(self, weight: Tensor, shared: SharedRows) -> None:
        """weight: [out, in], of any float type; all layers of a model have one `shared`."""
        super().__init__()
        self.shared = shared
        rows, scales = quantize_rows(weight)
        self.weight = torch.nn.Parameter(rows, requires_grad=False)
        self.register_buffer("scales", scales.t().contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Return x [T, in] times the weight, [T, out] in the type of `x`."""
        return multiply(*self.shared.quantized(x), self.weight, self.scales, x.dtype)


def _quantize_by_kernel(x: Tensor) -> tuple[Tensor, Tensor]:
    import triton

    rows = torch.empty_like(x, dtype=torch.float8_e4m3fn)
    scales = torch.empty((len(x), 1), dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(x.shape[1])
    _kernel()[(len(x),)](
        x,
        rows,
        scales,
        NUM_CHANNELS=x.shape[1],
        LARGEST=LARGEST,
        SMALLEST_ABSMAX=SMALLEST_ABSMAX,
        BLOCK_C=block,
        num_warps=max(block // 1024, 4),
    )
    return rows, scales


@cache
def _kernel() -> Any:
    """Return the kernel; Triton is imported on a GPU only."""
    from bench.first_gpu.fp8_kernel import quantize_rows_fwd_kernel

    return quantize_rows_fwd_kernel
