"""Computes the gate of the feed-forward layer (SwiGLU)."""

import torch
from torch import Tensor

from model.ops.backend import Backend
from model.ops.quantized_rows import QuantizedRows
from model.ops.row_quantization import quantize_rows_to
from model.ops.swiglu import in_place


def swiglu(gate: Tensor, up: Tensor, *, backend: Backend) -> Tensor:
    """Compute what `reference.swiglu` defines, with the version for `backend`."""
    if backend == "triton":
        from model.ops.swiglu import kernel

        return kernel.swiglu(gate, up)
    return in_place.swiglu(gate, up)


def swiglu_quantized(
    gate: Tensor, up: Tensor, *, values_dtype: torch.dtype, backend: Backend
) -> QuantizedRows:
    """Compute `swiglu`, and quantize its rows, with the version for `backend`.

    values_dtype: the type of the quantized rows, int8 or float8_e4m3fn.
    """
    if backend == "triton":
        from model.ops.swiglu import kernel

        return kernel.swiglu_quantized(gate, up, values_dtype=values_dtype)
    return quantize_rows_to(values_dtype, in_place.swiglu(gate, up), backend=backend)


__all__ = ["swiglu", "swiglu_quantized"]
