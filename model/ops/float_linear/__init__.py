"""Computes linear layers of floats so that no bit of a row depends on the other rows of a pass.

Only a GPU needs this form: there cuBLAS may choose another kernel for another number of rows. It
exists in Triton alone.
"""

from torch import Tensor


def float_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Compute what `reference.float_linear` defines with the Triton kernel."""
    from model.ops.float_linear import kernel

    return kernel.float_linear(x, weight)


__all__ = ["float_linear"]
