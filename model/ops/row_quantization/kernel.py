"""Quantizes rows inside the kernels that compute them."""

import triton
import triton.language as tl

from model.ops.fp8_linear import kernel as fp8
from model.ops.int8_linear import kernel as int8
from model.ops.int8_linear.reference import LARGEST

_quantize_to_fp8, _quantize_to_int8 = fp8.quantize_row, int8.quantize_row
_LARGEST_INT8 = tl.constexpr(LARGEST)


@triton.jit
def quantize_row_for(x, values_ptr):
    """Return the float32 row `x` in the type at `values_ptr`, int8 or e4m3, and its scale."""
    if values_ptr.dtype.element_ty == tl.int8:
        values, scale = _quantize_to_int8(x, _LARGEST_INT8)
    else:
        values, scale = _quantize_to_fp8(x)
    return values, scale
