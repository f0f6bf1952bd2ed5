"""The fp8 linear layer on a CPU: exact sums, and the same bits whatever the other rows."""

import math

import pytest
import torch

from model.ops import int8_linear
from model.ops.fp8_linear import FP8, scaled_mm
from model.ops.fp8_linear import fp8_linear as multiply
from model.ops.fp8_linear import quantize_rows as quantize
from model.ops.fp8_linear.reference import LARGEST, MAX_IN_CHANNELS, SMALLEST_ABSMAX
from model.ops.fp8_linear.tiles import TILES, tile_for
from model.ops.quantized_rows import QuantizedRows


def fp8_linear(x, weight, weight_scales):
    return multiply(quantize(x, backend="torch"), weight, weight_scales, backend="torch")


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def quantized():
    """A weight [96, 160] as the layer stores it, and as it was."""
    weight = randn(96, 160)
    rows = quantize(weight, backend="torch")
    return rows.values, rows.scales, weight


def test_values_are_rounded_to_the_nearest_e4m3_halves_to_even():
    # Of 448 the factor is 1. From 16 to 32 steps are 2, and below 2^-6 they are 2^-9.
    x = torch.tensor([[448.0, 17.0, 19.0, -17.1, 2**-10, 1.5 * 2**-9, 0.3, 0.0]])
    rows = quantize(x, backend="torch")
    expected = [[448.0, 16.0, 20.0, -18.0, 0.0, 2 * 2**-9, 0.3125, 0.0]]
    assert (rows.values.dtype, rows.values.float().tolist()) == (FP8, expected)
    assert rows.scales.tolist() == [1.0]


def test_numbers_are_within_half_a_step():
    x = randn(30, 64) * torch.logspace(-3, 3, 64)
    rows = quantize(x, backend="torch")
    error = (rows.values.float() * rows.scales[:, None] - x).abs()
    # Half a step is a sixteenth of the power of two below, or 2^-10 of the scale.
    assert (error <= x.abs() / 16 + rows.scales[:, None] * 2**-10).all()


def test_result_is_near_the_exact_product(quantized):
    values, scales, weight = quantized
    x = randn(50, 160, seed=1)
    exact = x @ weight.t()
    # Each factor is off by 2.6 % (root mean square of a rounding to 4 significant bits).
    assert (fp8_linear(x, values, scales) - exact).norm() / exact.norm() < 0.045


def test_outlier_costs_the_rest_of_its_row_less_than_in_int8():
    x = randn(20, 160)
    x[:, 7] = 200
    others = torch.arange(160) != 7
    errors = []
    for rows in (quantize(x, backend="torch"), int8_linear.quantize_rows(x, backend="torch")):
        restored = rows.values.float() * rows.scales[:, None]
        errors.append(float((restored - x)[:, others].norm() / x[:, others].norm()))
    assert errors[0] < 0.04 < 0.3 < errors[1]


def test_sums_of_the_largest_products_are_exact():
    """One product of the smallest numbers stays visible beside the largest ones."""
    x = torch.full((1, 4096), float(LARGEST))
    weight = torch.full((2, 4096), float(LARGEST))
    x[0, ::2] *= -1
    x[0, :2], weight[:, :2] = 2**-9, 2**-9
    weight[1, 1] = 0
    weight = weight.to(FP8)
    rows = QuantizedRows(x.to(FP8), torch.ones(1), torch.float32)
    y = multiply(rows, weight, torch.ones(2), backend="torch")
    assert y.tolist() == [[2 * 2**-18, 2**-18]]


def test_no_sum_of_an_allowed_depth_leaves_float64():
    assert MAX_IN_CHANNELS * LARGEST**2 < 2**53 * 2**-18


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_result_does_not_depend_on_batch_mates(quantized, dtype):
    values, scales, _ = quantized
    x = randn(33, 160, seed=3).to(dtype)
    x[5] *= 1000
    together = fp8_linear(x, values, scales)
    for first, last in [(0, 1), (5, 6), (32, 33), (0, 16), (4, 33)]:
        assert torch.equal(together[first:last], fp8_linear(x[first:last], values, scales))
    assert together.dtype == dtype


@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-33, 1e-20, 1e30])
def test_rows_of_any_size_stay_finite(quantized, size):
    values, scales, _ = quantized
    x = randn(2, 160) * size
    rows = quantize(x, backend="torch")
    assert rows.values.float().isfinite().all()
    assert rows.scales.isfinite().all()
    assert fp8_linear(x, values, scales).isfinite().all()
    if size > SMALLEST_ABSMAX:
        assert rows.values.float().abs().amax(dim=1).tolist() == [LARGEST] * 2
    if not size:
        assert not fp8_linear(x, values, scales).any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_row_that_is_not_finite_gives_no_finite_number(quantized, value):
    values, scales, _ = quantized
    x = torch.ones(2, 160)
    x[0, 3] = value
    y = fp8_linear(x, values, scales)
    assert not y[0].isfinite().any()
    assert y[1].isfinite().all()


@pytest.mark.parametrize(("num_in", "dtype"), [(160, torch.float32), (150, torch.bfloat16)])
def test_form_for_other_types_and_widths_gives_the_same(num_in, dtype):
    """PyTorch's fp8 product takes bfloat16 and multiples of 16 alone."""
    rows = quantize(randn(9, num_in).to(dtype), backend="torch")
    weight = quantize(randn(96, num_in, seed=1), backend="torch")
    expected = multiply(rows, weight.values, weight.scales, backend="torch")
    ours = scaled_mm.fp8_linear(rows, weight.values, weight.scales)
    tolerance = 1e-5 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("capability", TILES)
def test_tiles_of_a_capability_add_in_one_order(capability):
    tiles = [tile_for(capability, num_rows) for num_rows in (1, 16, 17, 64, 65, 1000, 30_000)]
    assert len({tile.inputs for tile in tiles}) == 1
    if capability >= 90:
        # Fewer rows or warps would be multiplied by `mma` instead of `wgmma`.
        assert all(tile.rows >= 64 and tile.num_warps >= 4 for tile in tiles)
