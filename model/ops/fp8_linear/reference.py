"""Defines a linear layer with fp8 (e4m3) weights and activations, each with one scale per row.

e4m3 has 4 bits of exponent and 3 of mantissa (Micikevicius et al. 2022, arXiv:2209.05433, table 1).
Its steps are relative to each number, so that an outlier costs the rest of its row less than in
int8.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which everyone knows it
from torch import Tensor

from model.ops.quantized_rows import QuantizedRows

FP8 = torch.float8_e4m3fn
LARGEST = 448  # of e4m3
# A row whose largest number is smaller is quantized as if this were its largest: without a bound,
# the factor 448 / max |x| would overflow.
SMALLEST_ABSMAX = 2.0**-100
# Products are multiples of 2**-18 below 2**18: float64 holds the sum of so many exactly.
MAX_IN_CHANNELS = 131_072


def quantize_rows(x: Tensor) -> QuantizedRows:
    """Quantize `x` [T, channels], any float type, row by row.

        absmax = max(max |x_row|, 2^-100)       scale = absmax / 448
        q = e4m3(x * (1 / absmax * 448)), rounded to the nearest, halves to even

    A row that is not finite has a scale that is not finite.
    """
    rows = x.float()
    # A maximum may skip NaN. The sum brings NaN and infinity into the scale.
    absmax = rows.abs().amax(dim=-1).clamp(min=SMALLEST_ABSMAX) + (rows * 0.0).sum(dim=-1)
    inverse = absmax.reciprocal() * LARGEST
    return QuantizedRows((rows * inverse[:, None]).to(FP8), absmax / LARGEST, x.dtype)


def fp8_linear(x: QuantizedRows, weight: Tensor, weight_scales: Tensor) -> Tensor:
    """Return `x @ W^T` [T, out] in the type of `x`, for W = weight * weight_scales.

    weight: [out, in] e4m3; weight_scales: [out] float32. Sums of products are exact (float64) and
    rounded once to float32, so no bit of a row's result depends on the other rows. A GPU adds in
    float32 or less; `kernel.py` says how.
    """
    # By way of float32: PyTorch converts e4m3 to float64 at half the speed.
    sums = F.linear(x.values.float().double(), weight.float().double()).float()
    return (sums * x.scales[:, None] * weight_scales).to(x.dtype)
