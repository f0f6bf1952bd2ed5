"""Computes int8 linear layers in PyTorch, with few reads and writes besides the product."""

import torch
from torch import Tensor

from model.ops.int8_linear.cpu_forms import exact_sums
from model.ops.int8_linear.reference import LARGEST, int_mm
from model.ops.quantized_rows import QuantizedRows


def int8_linear(x: QuantizedRows, weight: Tensor, weight_absmax: Tensor) -> Tensor:
    """Compute what `reference.int8_linear` defines, to the bit."""
    sums = _sums(x.values, weight)
    return sums.mul_(x.scales[:, None]).mul_(weight_absmax / LARGEST).to(x.dtype)


def _sums(quantized: Tensor, weight: Tensor) -> Tensor:
    if quantized.is_cuda:
        return int_mm(quantized, weight.t()).float()
    return exact_sums(quantized, weight)


def quantize_rows(x: Tensor) -> QuantizedRows:
    """Compute what `reference.quantize_rows` defines.

    A number that is not finite becomes an arbitrary int8; the scale of its row is not finite.
    """
    # Both read the rows without a copy; absolute values would be written first.
    largest, smallest = x.amax(dim=-1, keepdim=True), x.amin(dim=-1, keepdim=True)
    absmax = torch.maximum(largest, smallest.neg_()).float()
    inverse = torch.where(absmax > 0, absmax.reciprocal() * LARGEST, 0.0)
    quantized = torch.mul(x, inverse).round_().to(torch.int8)
    return QuantizedRows(quantized, (absmax / LARGEST)[:, 0], x.dtype)
