"""Computes int8 linear layers in PyTorch, with few reads and writes besides the product."""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.ops.int8_linear.cpu_forms import exact_sums
from model.ops.int8_linear.reference import LARGEST, int_mm


def int8_linears(x: Tensor, weights: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Compute what `reference.int8_linear` defines for each weight and its absmax, to the bit."""
    quantized, scales = quantize_rows(x.reshape(-1, x.shape[-1]))
    return [
        _sums(quantized, weight)
        .mul_(scales)
        .mul_(weight_absmax / LARGEST)
        .to(x.dtype)
        .view(*x.shape[:-1], len(weight))
        for weight, weight_absmax in weights
    ]


def _sums(quantized: Tensor, weight: Tensor) -> Tensor:
    if quantized.is_cuda:
        return int_mm(quantized, weight.t()).float()
    return exact_sums(quantized, weight)


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute what `reference.quantize_rows` defines, the scales as [T, 1].

    A number that is not finite becomes an arbitrary int8; the scale of its row is not finite.
    """
    absmax = x.abs().amax(dim=-1, keepdim=True).float()
    inverse = torch.where(absmax > 0, absmax.reciprocal() * LARGEST, 0.0)
    return torch.mul(x, inverse).round_().to(torch.int8), absmax / LARGEST
