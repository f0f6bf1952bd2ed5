"""Quantizes rows to the number format of the linear layer that reads them."""

import torch
from torch import Tensor

from model.ops import fp8_linear, int8_linear
from model.ops.backend import Backend
from model.ops.quantized_rows import QuantizedRows


def quantize_rows_to(values_dtype: torch.dtype, x: Tensor, *, backend: Backend) -> QuantizedRows:
    """Quantize `x` [T, channels] for the products of `values_dtype`: int8 or float8_e4m3fn."""
    op = int8_linear if values_dtype == torch.int8 else fp8_linear
    return op.quantize_rows(x, backend=backend)


__all__ = ["quantize_rows_to"]
