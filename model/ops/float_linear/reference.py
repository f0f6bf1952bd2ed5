"""Defines a linear layer of floats, whose sums are float32."""

from torch import Tensor


def float_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return `x @ weight^T` [T, out] in the type of `x`, for x [T, in] and weight [out, in]."""
    return (x.float() @ weight.float().t()).to(x.dtype)
