"""Computes the gate of the feed-forward layer (SwiGLU)."""

from torch import Tensor

from model.ops.backend import Backend
from model.ops.int8_linear import QuantizedRows, quantize_rows
from model.ops.swiglu import in_place


def swiglu(gate: Tensor, up: Tensor, *, backend: Backend) -> Tensor:
    """Compute what `reference.swiglu` defines, with the version for `backend`."""
    if backend == "triton":
        from model.ops.swiglu import kernel

        return kernel.swiglu(gate, up)
    return in_place.swiglu(gate, up)


def swiglu_quantized(gate: Tensor, up: Tensor, *, backend: Backend) -> QuantizedRows:
    """Compute `swiglu`, and quantize its rows, with the version for `backend`."""
    if backend == "triton":
        from model.ops.swiglu import kernel

        return kernel.swiglu_quantized(gate, up)
    return quantize_rows(in_place.swiglu(gate, up), backend=backend)


__all__ = ["swiglu", "swiglu_quantized"]
