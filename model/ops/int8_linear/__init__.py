"""A linear layer with int8 weights and activations, scaled row by row."""

from torch import Tensor

from model.ops.backend import Backend
from model.ops.int8_linear import reference


def int8_linear(x: Tensor, weight: Tensor, weight_absmax: Tensor, *, backend: Backend) -> Tensor:
    """Compute what `reference.int8_linear` defines, by the form that `backend` names."""
    if backend == "triton":
        from model.ops.int8_linear import kernel

        return kernel.int8_linear(x, weight, weight_absmax)
    return reference.int8_linear(x, weight, weight_absmax)


__all__ = ["int8_linear"]
