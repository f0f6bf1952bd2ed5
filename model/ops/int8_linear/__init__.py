"""Computes linear layers with int8 weights and activations, scaled row by row."""

from collections.abc import Sequence

from torch import Tensor

from model.ops.backend import Backend
from model.ops.int8_linear import in_place


def int8_linears(
    x: Tensor, weights: Sequence[tuple[Tensor, Tensor]], *, backend: Backend
) -> list[Tensor]:
    """Compute what `reference.int8_linear` defines for each weight and its absmax.

    The rows of `x`, which the layers share, are quantized once.
    """
    if backend == "triton":
        from model.ops.int8_linear import kernel

        return kernel.int8_linears(x, weights)
    return in_place.int8_linears(x, weights)


def int8_linear(x: Tensor, weight: Tensor, weight_absmax: Tensor, *, backend: Backend) -> Tensor:
    """Compute what `reference.int8_linear` defines, with the version for `backend`."""
    return int8_linears(x, [(weight, weight_absmax)], backend=backend)[0]


__all__ = ["int8_linear", "int8_linears"]
