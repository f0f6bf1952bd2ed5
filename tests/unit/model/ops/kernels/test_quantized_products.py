"""The int8 and fp8 kernels alike: rows that are not finite, and weights that do not fit."""

import pytest
import torch

from model.ops import fp8_linear, int8_linear
from model.ops.backend import has_fp8_products
from model.ops.row_quantization import quantize_rows_to

PRODUCTS = {torch.int8: int8_linear.int8_linear, fp8_linear.FP8: fp8_linear.fp8_linear}


@pytest.fixture(params=PRODUCTS, ids=str)
def values_dtype(request, device):
    """The type of the quantized rows and of the weight."""
    if request.param == fp8_linear.FP8 and not has_fp8_products(device):
        pytest.skip("this GPU multiplies no fp8")
    return request.param


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_row_that_is_not_finite_gives_no_finite_number(value, values_dtype, randn):
    x = randn(3, 64)
    x[1, 5] = value
    rows = quantize_rows_to(values_dtype, x, backend="triton")
    weight = quantize_rows_to(values_dtype, randn(4, 64), backend="triton")
    y = PRODUCTS[values_dtype](rows, weight.values, weight.scales, backend="triton")
    assert not y[1].isfinite().any()
    assert y[[0, 2]].isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.float(), "weight has type torch.float32"),
        (lambda w: w[:, :-1].contiguous(), "weight has shape"),
        (lambda w: w.t().contiguous().t(), "weight has strides"),
    ],
    ids=["type", "inputs", "strides"],
)
def test_wrong_weight_is_named(change, message, values_dtype, randn):
    rows = quantize_rows_to(values_dtype, randn(2, 64), backend="triton")
    weight = quantize_rows_to(values_dtype, randn(8, 64), backend="triton")
    with pytest.raises(ValueError, match=message):
        PRODUCTS[values_dtype](rows, change(weight.values), weight.scales, backend="triton")
