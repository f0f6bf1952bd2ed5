"""The int8 linear layer: close to the exact product, and the same whoever shares the batch."""

import bitsandbytes.functional as bnb
import pytest
import torch

from model.ops.int8_linear import int8_linear
from model.ops.int8_linear.reference import quantize_rows


@pytest.fixture
def quantized():
    """A weight [96, 160] as bitsandbytes stores it, and as it was."""
    weight = torch.randn(96, 160, generator=torch.Generator().manual_seed(0))
    values, absmax, _ = bnb.int8_vectorwise_quant(weight.half())
    return values, absmax, weight


def test_result_is_near_the_exact_product(quantized):
    values, absmax, weight = quantized
    x = torch.randn(50, 160, generator=torch.Generator().manual_seed(1))
    y = int8_linear(x, values, absmax, backend="torch")
    exact = x @ weight.t()
    assert (y - exact).norm() / exact.norm() < 0.015


def test_result_is_what_bitsandbytes_computes_row_by_row(quantized):
    values, absmax, _ = quantized
    x = torch.randn(7, 160, generator=torch.Generator().manual_seed(2)).half()
    rows, row_absmax, _ = bnb.int8_vectorwise_quant(x)
    theirs = bnb.int8_mm_dequant(bnb.int8_linear_matmul(rows, values), row_absmax, absmax)
    ours = int8_linear(x, values, absmax, backend="torch")
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_result_does_not_depend_on_batch_mates(quantized, dtype):
    values, absmax, _ = quantized
    x = torch.randn(33, 160, generator=torch.Generator().manual_seed(3)).to(dtype)
    x[5] *= 1000
    together = int8_linear(x, values, absmax, backend="torch")
    for number in range(len(x)):
        alone = int8_linear(x[number : number + 1], values, absmax, backend="torch")
        assert torch.equal(together[number : number + 1], alone)
    assert together.dtype == dtype


def test_row_of_zeros_stays_zero(quantized):
    values, absmax, _ = quantized
    assert not int8_linear(torch.zeros(2, 160), values, absmax, backend="torch").any()


def test_row_that_is_not_finite_gives_no_finite_number(quantized):
    values, absmax, _ = quantized
    x = torch.ones(3, 160)
    x[0, 3], x[1, 3] = float("nan"), float("inf")
    y = int8_linear(x, values, absmax, backend="torch")
    assert not y[:2].isfinite().any()
    assert y[2].isfinite().all()


def test_halves_are_rounded_to_even():
    x = torch.tensor([[127.0, 0.5, 1.5, -2.5]])
    quantized, scale = quantize_rows(x)
    assert quantized.tolist() == [[127, 0, 2, -2]]
    assert scale.tolist() == [1.0]
