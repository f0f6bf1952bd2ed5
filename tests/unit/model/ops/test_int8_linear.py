"""The int8 linear layer: close to the exact product, and the same whatever the other rows."""

import os
import subprocess
import sys
import time

import bitsandbytes.functional as bnb
import pytest
import torch

from model.ops.int8_linear import cpu_forms, in_place, reference
from model.ops.int8_linear import int8_linear as multiply
from model.ops.int8_linear import quantize_rows as quantize
from model.ops.int8_linear.reference import float32_int_mm, quantize_rows
from tests.conftest import HANG_S


def int8_linear(x, weight, weight_absmax):
    return multiply(quantize(x, backend="torch"), weight, weight_absmax, backend="torch")


@pytest.fixture
def quantized():
    """A weight [96, 160] as bitsandbytes stores it, and as it was."""
    weight = torch.randn(96, 160, generator=torch.Generator().manual_seed(0))
    values, absmax, _ = bnb.int8_vectorwise_quant(weight.half())
    return values, absmax, weight


def test_result_is_near_the_exact_product(quantized):
    values, absmax, weight = quantized
    x = torch.randn(50, 160, generator=torch.Generator().manual_seed(1))
    y = int8_linear(x, values, absmax)
    exact = x @ weight.t()
    assert (y - exact).norm() / exact.norm() < 0.015


def test_result_is_what_bitsandbytes_computes_row_by_row(quantized):
    values, absmax, _ = quantized
    x = torch.randn(7, 160, generator=torch.Generator().manual_seed(2)).half()
    rows, row_absmax, _ = bnb.int8_vectorwise_quant(x)
    theirs = bnb.int8_mm_dequant(bnb.int8_linear_matmul(rows, values), row_absmax, absmax)
    ours = int8_linear(x, values, absmax)
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_result_does_not_depend_on_batch_mates(quantized, dtype):
    values, absmax, _ = quantized
    x = torch.randn(33, 160, generator=torch.Generator().manual_seed(3)).to(dtype)
    x[5] *= 1000
    together = int8_linear(x, values, absmax)
    for number in range(len(x)):
        alone = int8_linear(x[number : number + 1], values, absmax)
        assert torch.equal(together[number : number + 1], alone)
    assert together.dtype == dtype


def test_row_of_zeros_stays_zero(quantized):
    values, absmax, _ = quantized
    assert not int8_linear(torch.zeros(2, 160), values, absmax).any()


def test_row_that_is_not_finite_gives_no_finite_number(quantized):
    values, absmax, _ = quantized
    x = torch.ones(3, 160)
    x[0, 3], x[1, 3] = float("nan"), float("inf")
    y = int8_linear(x, values, absmax)
    assert not y[:2].isfinite().any()
    assert y[2].isfinite().all()


def test_halves_are_rounded_to_even():
    x = torch.tensor([[127.0, 0.5, 1.5, -2.5]])
    quantized = quantize_rows(x)
    assert quantized.values.tolist() == [[127, 0, 2, -2]]
    assert quantized.scales.tolist() == [1.0]


# Prints how many sums are wrong of int8 products whose depth is beyond that of one float32 product.
EXACT_PROGRAM = """
import torch
from model.ops.int8_linear import int8_linear, quantize_rows
a, b = (torch.randint(-127, 128, (n, 1500), generator=torch.Generator().manual_seed(n))
        for n in (70, 48))
a[:, 0] = b[0] = 127
x, absmax = quantize_rows(a.float(), backend="torch"), torch.full((48,), 127.0)
y = int8_linear(x, b.to(torch.int8), absmax, backend="torch")
print((y.double() != (a.double() @ b.double().t()).float().double()).sum().item())
"""


@pytest.mark.parametrize("instructions", ["AVX2", "DEFAULT"])
def test_sums_are_exact_on_cpus_without_vnni_too(instructions):
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    command = [sys.executable, "-c", EXACT_PROGRAM]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_S)
    assert (run.returncode, run.stdout.strip()) == (0, "0"), run.stderr


@pytest.mark.parametrize("depth", [1, 512, 1040, 1041, 2500])
def test_every_exact_form_on_a_cpu_has_the_same_bits(depth):
    generator = torch.Generator().manual_seed(depth)
    x, weight = (
        torch.randint(-127, 128, (rows, depth), generator=generator, dtype=torch.int8)
        for rows in (19, 33)
    )
    x[0] = weight[0] = 127
    exact = (x.double() @ weight.double().t()).float()
    forms = [cpu_forms.by_float32, cpu_forms.exact_sums]
    forms += [cpu_forms.by_int8] if cpu_forms.is_exact(cpu_forms.by_int8) else []
    for form in forms:
        assert torch.equal(form(x, weight), exact)


def exact_form(x, weight):
    return (x.double() @ weight.double().t()).float()


def slow_exact_form(x, weight):
    time.sleep(0.2)
    return exact_form(x, weight)


def wrong_form(x, weight):
    """Saturates one sum, as a CPU without VNNI does."""
    return exact_form(x, weight).clamp(max=2**15)


@pytest.mark.parametrize(
    ("by_int8", "by_float32", "chosen"),
    [
        (wrong_form, slow_exact_form, "by_float32"),
        (slow_exact_form, exact_form, "by_float32"),
        (exact_form, slow_exact_form, "by_int8"),
    ],
    ids=["the fast one is wrong", "int8 is slow", "float32 is slow"],
)
def test_fastest_exact_form_is_taken(by_int8, by_float32, chosen, monkeypatch):
    monkeypatch.setattr(cpu_forms, "by_int8", by_int8)
    monkeypatch.setattr(cpu_forms, "by_float32", by_float32)
    assert cpu_forms.fastest_exact_form.__wrapped__() is getattr(cpu_forms, chosen)


@pytest.mark.parametrize("depth", [1, 1039, 1040, 1041, 2500])
def test_float32_products_of_int8_are_exact(depth):
    a, b = (torch.full((rows, depth), 127, dtype=torch.int8) for rows in (3, 5))
    b[1:] = torch.randint(-127, 128, (4, depth), generator=torch.Generator().manual_seed(0))
    exact = (a.double() @ b.double().t()).to(torch.int32)
    assert torch.equal(float32_int_mm(a, b.t()), exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("num_rows", [0, 1, 63, 64, 65, 130])
def test_result_has_the_bits_of_the_definition(quantized, num_rows, dtype):
    x = torch.randn(num_rows, 160, generator=torch.Generator().manual_seed(4)).to(dtype)
    expected = reference.int8_linear(quantize_rows(x), *quantized[:2])
    assert torch.equal(int8_linear(x, *quantized[:2]), expected)


def test_rows_are_quantized_as_the_definition_does(quantized):
    x = torch.randn(9, 160, generator=torch.Generator().manual_seed(6))
    x[3] = 0
    ours, expected = in_place.quantize_rows(x), quantize_rows(x)
    assert torch.equal(ours.values, expected.values)
    assert torch.equal(ours.scales, expected.scales)
    assert ours.dtype == expected.dtype
