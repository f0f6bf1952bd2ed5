"""Holds activations as rows of 8-bit numbers, each row with its scale."""

from typing import NamedTuple

import torch
from torch import Tensor


class QuantizedRows(NamedTuple):
    """Rows of activations as int8 or e4m3, and what a product needs besides them."""

    values: Tensor  # [T, channels] int8 or float8_e4m3fn
    scales: Tensor  # [T] float32
    dtype: torch.dtype  # type of the rows before, and of products

    @classmethod
    def empty_like(cls, x: Tensor, values_dtype: torch.dtype) -> "QuantizedRows":
        """Return room for the rows of `x` [T, channels]."""
        return cls(
            torch.empty(x.shape, dtype=values_dtype, device=x.device),
            torch.empty(x.shape[0], dtype=torch.float32, device=x.device),
            x.dtype,
        )
