"""Computes linear layers with fp8 (e4m3) weights and activations, scaled row by row."""

from torch import Tensor

from model.ops.backend import Backend
from model.ops.fp8_linear import reference, scaled_mm
from model.ops.fp8_linear.reference import FP8
from model.ops.quantized_rows import QuantizedRows


def quantize_rows(x: Tensor, *, backend: Backend) -> QuantizedRows:
    """Compute what `reference.quantize_rows` defines, with the version for `backend`."""
    if backend == "triton":
        from model.ops.fp8_linear import kernel

        return kernel.quantize_rows(x)
    return reference.quantize_rows(x)


def fp8_linear(
    x: QuantizedRows, weight: Tensor, weight_scales: Tensor, *, backend: Backend
) -> Tensor:
    """Compute what `reference.fp8_linear` defines, with the version for `backend` and device."""
    if backend == "triton":
        from model.ops.fp8_linear import kernel

        return kernel.fp8_linear(x, weight, weight_scales)
    if weight.is_cuda:
        return scaled_mm.fp8_linear(x, weight, weight_scales)
    return reference.fp8_linear(x, weight, weight_scales)


__all__ = ["FP8", "fp8_linear", "quantize_rows"]
