"""Defines a linear layer with int8 weights and activations, each with one scale per row.

It is the row-wise part of LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339, section 2.1). That
method leaves some columns in 16 bits; we do not, since all texts of a pass decide which columns.
"""

import torch
from torch import Tensor

from model.ops.quantized_rows import QuantizedRows

LARGEST = 127
# 127 * 127 * 1,040 is the largest sum of products below 2**24, up to which float32 is exact.
EXACT_FLOAT32_DEPTH = 1040
# 127 * 127 * 133,152 is the largest sum of products that int32 holds.
MAX_IN_CHANNELS = 133_152


def quantize_rows(x: Tensor) -> QuantizedRows:
    """Quantize `x` [T, channels], any float type, row by row.

        scale = max |x_row| / 127        q = round(x * (1 / max |x_row| * 127)), halves to even

    A row of zeros has scale 0. A row that is not finite has a scale that is not finite.
    """
    rows = x.float()
    absmax = rows.abs().amax(dim=-1)
    inverse = torch.where(absmax > 0, absmax.reciprocal() * LARGEST, 0.0)
    quantized = (rows * inverse[:, None]).nan_to_num(nan=0.0).round().to(torch.int8)
    return QuantizedRows(quantized, absmax / LARGEST, x.dtype)


def int8_linear(x: QuantizedRows, weight: Tensor, weight_absmax: Tensor) -> Tensor:
    """Return `x @ W^T` [T, out] in the type of `x`, for W = weight * weight_absmax / 127.

    weight: [out, in] int8 and weight_absmax: [out] float32 as bitsandbytes stores them (`CB` and
    `SCB`). Sums of products are exact (int32), so no bit of a row's result depends on the other
    rows.
    """
    products = int_mm(x.values, weight.t())
    y = products.float() * x.scales[:, None] * (weight_absmax / LARGEST)
    return y.to(x.dtype)


def int_mm(a: Tensor, b: Tensor) -> Tensor:
    """Multiply int8 matrices into int32, exactly; cuBLAS needs 17 rows or more."""
    if not a.is_cuda:
        return float32_int_mm(a, b)
    num_missing = max(17 - len(a), 0)
    if num_missing:
        a = torch.cat((a, a.new_zeros(num_missing, a.shape[1])))
    return torch._int_mm(a, b)[: len(a) - num_missing]


def float32_int_mm(a: Tensor, b: Tensor) -> Tensor:
    """Multiply int8 matrices into int32 through float32 products short enough to be exact."""
    total = torch.zeros(len(a), b.shape[1], dtype=torch.int32)
    pieces = zip(a.split(EXACT_FLOAT32_DEPTH, dim=1), b.split(EXACT_FLOAT32_DEPTH), strict=True)
    for rows, columns in pieces:
        total += torch.mm(rows.float(), columns.float()).to(torch.int32)
    return total
