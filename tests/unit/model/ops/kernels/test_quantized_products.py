"""The int8 and fp8 kernels alike: both forms, rows that are not finite, weights that do not fit."""

from dataclasses import replace

import pytest
import torch
import triton

import model.ops.fp8_linear.kernel
import model.ops.int8_linear.kernel
from model.ops import fp8_linear, int8_linear
from model.ops.backend import has_fp8_products
from model.ops.launching import gpu_capability
from model.ops.row_quantization import quantize_rows_to
from model.ops.tiled_product import launch
from model.ops.tiled_product.kernel import GROUP_SIZE
from model.ops.tiled_product.tiles import Tile

KERNELS = {
    torch.int8: model.ops.int8_linear.kernel,
    fp8_linear.FP8: model.ops.fp8_linear.kernel,
}
TILE = Tile(64, 64, 128, 4, 3)
NUM_ROWS, NUM_OUT = (GROUP_SIZE.value + 2) * TILE.rows + 5, TILE.outputs + 7
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


@pytest.fixture
def described(monkeypatch):
    """The numbers of programs of products whose operands a descriptor reads; it sets their SMs."""
    if not triton.knobs.runtime.interpret and gpu_capability() != 90:
        pytest.skip("needs the tensor memory accelerator of compute capability 9.0")
    descriptors: list[int] = []

    def set_processors(number: int) -> list[int]:
        def num_processors(device: torch.device) -> int:
            descriptors.append(number)
            return number

        monkeypatch.setattr(launch, "num_processors", num_processors)
        return descriptors

    return set_processors


def both_forms(values_dtype, num_in, randn, monkeypatch) -> tuple[torch.Tensor, torch.Tensor]:
    """One product in the plain form and by descriptors; their width may refuse these."""
    rows = quantize_rows_to(values_dtype, randn(NUM_ROWS, num_in), backend="triton")
    weight = quantize_rows_to(values_dtype, randn(NUM_OUT, num_in), backend="triton")
    found = []
    for by_descriptor in (False, True):
        tile = replace(TILE, by_descriptor=by_descriptor)
        monkeypatch.setattr(KERNELS[values_dtype], "tile_for", lambda *_, tile=tile: tile)
        found.append(PRODUCTS[values_dtype](rows, weight.values, weight.scales, backend="triton"))
    return found[0], found[1]


@pytest.mark.parametrize(("num_processors", "num_in"), [(1, 16), (5, 400), (1000, 128)])
def test_product_by_descriptors_has_the_bits_of_the_plain_one(
    num_processors, num_in, values_dtype, described, randn, monkeypatch
):
    calls = described(num_processors)
    plain, ours = both_forms(values_dtype, num_in, randn, monkeypatch)
    torch.testing.assert_close(ours, plain, rtol=0, atol=0)
    assert len(calls) == 1


def test_width_that_no_descriptor_takes_has_the_plain_form(
    values_dtype, described, randn, monkeypatch
):
    calls = described(5)
    plain, ours = both_forms(values_dtype, 100, randn, monkeypatch)
    torch.testing.assert_close(ours, plain, rtol=0, atol=0)
    assert calls == []


@pytest.mark.parametrize(
    ("num_in", "first_byte", "is_possible"),
    [
        (4096, 0, True),
        (16, 0, True),
        (8, 0, False),
        (100, 0, False),
        (32, 16, True),
        (32, 8, False),
    ],
)
def test_descriptors_need_multiples_of_16_bytes(num_in, first_byte, is_possible):
    memory = torch.empty(3 * num_in + first_byte, dtype=torch.int8)
    matrix = memory[first_byte:].view(3, num_in)
    assert launch.may_be_described(matrix) == is_possible
