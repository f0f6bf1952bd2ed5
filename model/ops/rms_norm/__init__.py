"""Adds the residual branch and normalises rows by their root mean square (RMS norm)."""

import torch
from torch import Tensor

from model.ops.backend import Backend
from model.ops.quantized_rows import QuantizedRows
from model.ops.rms_norm import in_place
from model.ops.row_quantization import quantize_rows_to


def add_rms_norm(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    *,
    eps: float,
    add_unit_offset: bool,
    backend: Backend,
) -> tuple[Tensor, Tensor]:
    """Compute what `reference.add_rms_norm` defines, with the version for `backend`."""
    if backend == "triton":
        from model.ops.rms_norm import kernel

        return kernel.add_rms_norm(x, branch, weight, eps=eps, add_unit_offset=add_unit_offset)
    return in_place.add_rms_norm(x, branch, weight, eps=eps, add_unit_offset=add_unit_offset)


def add_rms_norm_quantized(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    *,
    eps: float,
    add_unit_offset: bool,
    values_dtype: torch.dtype,
    backend: Backend,
) -> tuple[Tensor, QuantizedRows]:
    """Compute `add_rms_norm`, and quantize the normalised rows, with the version for `backend`.

    values_dtype: the type of the quantized rows, int8 or float8_e4m3fn.
    """
    if backend == "triton":
        from model.ops.rms_norm import kernel

        return kernel.add_rms_norm_quantized(
            x,
            branch,
            weight,
            eps=eps,
            add_unit_offset=add_unit_offset,
            values_dtype=values_dtype,
        )
    total, normalised = in_place.add_rms_norm(
        x, branch, weight, eps=eps, add_unit_offset=add_unit_offset
    )
    return total, quantize_rows_to(values_dtype, normalised, backend=backend)


__all__ = ["add_rms_norm", "add_rms_norm_quantized"]
