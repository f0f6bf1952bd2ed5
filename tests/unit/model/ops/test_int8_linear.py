"""The int8 linear layer: close to the exact product, and the same whoever shares the batch."""

import os
import subprocess
import sys

import bitsandbytes.functional as bnb
import pytest
import torch

from model.ops.int8_linear import in_place, int8_linear, int8_linears, reference
from model.ops.int8_linear.reference import float32_int_mm, quantize_rows
from tests.conftest import HANG_S


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


# Prints how many sums are wrong of int8 products whose depth is beyond that of one float32 product.
EXACT_PROGRAM = """
import torch
from model.ops.int8_linear import int8_linear
a, b = (torch.randint(-127, 128, (n, 1500), generator=torch.Generator().manual_seed(n))
        for n in (70, 48))
a[:, 0] = b[0] = 127
y = int8_linear(a.float(), b.to(torch.int8), torch.full((48,), 127.0), backend="torch")
print((y.double() != (a.double() @ b.double().t()).float().double()).sum().item())
"""


@pytest.mark.parametrize("instructions", ["AVX2", "DEFAULT"])
def test_sums_are_exact_on_cpus_without_vnni_too(instructions):
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    command = [sys.executable, "-c", EXACT_PROGRAM]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_S)
    assert (run.returncode, run.stdout.strip()) == (0, "0"), run.stderr


@pytest.mark.parametrize("depth", [1, 1039, 1040, 1041, 2500])
def test_float32_products_of_int8_are_exact(depth):
    a, b = (torch.full((rows, depth), 127, dtype=torch.int8) for rows in (3, 5))
    b[1:] = torch.randint(-127, 128, (4, depth), generator=torch.Generator().manual_seed(0))
    exact = (a.double() @ b.double().t()).to(torch.int32)
    assert torch.equal(float32_int_mm(a, b.t()), exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("num_rows", [0, 1, 63, 64, 65, 130])
def test_layers_that_share_rows_have_the_bits_of_the_definition(quantized, num_rows, dtype):
    values, absmax, _ = quantized
    x = torch.randn(num_rows, 160, generator=torch.Generator().manual_seed(4)).to(dtype)
    weights = [(values, absmax), (values[:7], absmax[:7] * 3)]
    for y, weight in zip(int8_linears(x, weights, backend="torch"), weights, strict=True):
        expected = reference.int8_linear(x, *weight)
        assert torch.equal(y, expected)


def test_rows_are_quantized_as_the_definition_does(quantized):
    x = torch.randn(9, 160, generator=torch.Generator().manual_seed(6))
    x[3] = 0
    ours, scales = in_place.quantize_rows(x)
    expected, expected_scales = quantize_rows(x)
    assert torch.equal(ours, expected)
    assert torch.equal(scales[:, 0], expected_scales)
