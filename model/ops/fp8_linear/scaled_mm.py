"""Computes the fp8 linear layer on a GPU without Triton, by PyTorch's own product."""

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which everyone knows it
from torch import Tensor

from model.ops.quantized_rows import QuantizedRows

# The product of CUTLASS or cuBLAS takes widths that are multiples of this.
WIDTH_STEP = 16


def fp8_linear(x: QuantizedRows, weight: Tensor, weight_scales: Tensor) -> Tensor:
    """Compute what `reference.fp8_linear` defines, up to the order and rounding of sums.

    PyTorch chooses the tile by the number of rows, so that bits may depend on the other rows.
    """
    if x.dtype != torch.bfloat16 or any(width % WIDTH_STEP for width in weight.shape):
        # PyTorch scales by rows into bfloat16 alone.
        sums = F.linear(x.values.float(), weight.float())
        return (sums * x.scales[:, None] * weight_scales).to(x.dtype)
    return torch._scaled_mm(
        x.values,
        weight.t(),
        scale_a=x.scales[:, None],
        scale_b=weight_scales[None, :],
        out_dtype=x.dtype,
        # Otherwise thousands of products are added with the 14 bits of the tensor cores.
        use_fast_accum=False,
    )
