"""Computes linear layers with int8 weights and activations, scaled row by row."""

from torch import Tensor

from model.ops.backend import Backend
from model.ops.int8_linear import in_place
from model.ops.quantized_rows import QuantizedRows


def quantize_rows(x: Tensor, *, backend: Backend) -> QuantizedRows:
    """Compute what `reference.quantize_rows` defines, with the version for `backend`."""
    if backend == "triton":
        from model.ops.int8_linear import kernel

        return kernel.quantize_rows(x)
    return in_place.quantize_rows(x)


def int8_linear(
    x: QuantizedRows, weight: Tensor, weight_absmax: Tensor, *, backend: Backend
) -> Tensor:
    """Compute what `reference.int8_linear` defines, with the version for `backend`."""
    if backend == "triton":
        from model.ops.int8_linear import kernel

        return kernel.int8_linear(x, weight, weight_absmax)
    return in_place.int8_linear(x, weight, weight_absmax)


__all__ = ["int8_linear", "quantize_rows"]
