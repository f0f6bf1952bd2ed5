"""Int8 linear layers by oneDNN, which scales the int32 sums before they reach memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.ops.int8_linear.reference import LARGEST, is_int_mm_exact

# Up to here reordering the weight for oneDNN takes longer than another pass over the sums.
MAX_ROWS_BY_INT_MM = 64


def is_available() -> bool:
    """Whether oneDNN is there and multiplies int8 exactly on this CPU."""
    has_onednn = torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported()
    return has_onednn and is_int_mm_exact()


def int8_linears(x: Tensor, weights: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Compute what `reference.int8_linear` defines for each weight and its absmax.

    A row's result has the same bits in any number of rows, and is within a rounding of float32
    of the reference's, which multiplies by the two scales in the other order.
    """
    rows = x.reshape(-1, x.shape[-1])
    quantized, scales = quantize_rows(rows)
    return [
        _multiply(quantized, weight, weight_absmax / LARGEST)
        .mul_(scales)
        .to(x.dtype)
        .view(*x.shape[:-1], len(weight))
        for weight, weight_absmax in weights
    ]


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute what `reference.quantize_rows` defines, the scales as [T, 1].

    A number that is not finite becomes any int8: the scale of its row shows it.
    """
    absmax = x.abs().amax(dim=-1, keepdim=True).float()
    inverse = torch.where(absmax > 0, LARGEST / absmax, 0.0)
    return x.float().mul(inverse).round_().to(torch.int8), absmax / LARGEST


def _multiply(quantized: Tensor, weight: Tensor, weight_scales: Tensor) -> Tensor:
    """Return `quantized @ weight^T` times the scale of each output, float32."""
    if len(quantized) <= MAX_ROWS_BY_INT_MM:
        return torch._int_mm(quantized, weight.t()).float().mul_(weight_scales)
    # Packed anew for each product: kept, it would double the memory that int8 is there to save.
    packed = torch.ops.onednn.qlinear_prepack(weight, list(quantized.shape))
    zero_points = torch.zeros(len(weight), dtype=torch.int64)
    return torch.ops.onednn.qlinear_pointwise(
        quantized,
        1.0,
        0,
        packed,
        weight_scales,
        zero_points,
        None,  # no bias
        1.0,
        0,
        torch.float32,
        "none",
        [],
        "",
    )
