"""The fp8 kernels: rows with the bits of the reference, sums within their rounding."""

import pytest
import torch
import triton

from model.ops.backend import has_fp8_products
from model.ops.fp8_linear import kernel, reference, tiles
from model.ops.fp8_linear.tiles import TILES, tile_for
from model.ops.tiled_product.tiles import Tile

IS_INTERPRETED = triton.knobs.runtime.interpret
if not IS_INTERPRETED and torch.cuda.is_available() and not has_fp8_products(torch.device("cuda")):
    pytest.skip("this GPU multiplies no fp8", allow_module_level=True)

# Relative to the norm of the result. A GPU adds 128 products at a time with about 14 bits, the
# interpreter in float32.
MAX_ERROR = 1e-6 if IS_INTERPRETED else 1e-3
# Rows, inputs and outputs. The interpreter is slow: it computes few rows and outputs.
WIDE = [(8200, 4096, 22_016), (3000, 11_008, 4096)]
if IS_INTERPRETED:
    WIDE = [(130, 4096, 7), (70, 11_008, 5)]


def fp8_linear(x, weight, scales):
    return kernel.fp8_linear(kernel.quantize_rows(x), weight, scales)


def quantized_weight(num_out, num_in, device):
    generator = torch.Generator().manual_seed(1)
    rows = reference.quantize_rows(torch.randn(num_out, num_in, generator=generator))
    return rows.values.to(device), rows.scales.to(device)


def assert_same_rows(ours, expected):
    assert torch.equal(ours.values.cpu().float(), expected.values.float())
    assert torch.equal(ours.scales.cpu(), expected.scales)
    assert ours.dtype == expected.dtype


def assert_near_the_reference(
    num_rows, num_in, num_out, randn, dtype=torch.float32, compared=slice(None)
):
    x = randn(num_rows, num_in, dtype=dtype)
    weight, scales = quantized_weight(num_out, num_in, x.device)
    rows = reference.quantize_rows(x.cpu()[compared])
    expected = reference.fp8_linear(rows, weight.cpu(), scales.cpu())
    ours = fp8_linear(x, weight, scales).cpu()
    assert ours.isfinite().all()
    ours = ours[compared]
    assert ours.dtype == expected.dtype
    rounding = 0 if dtype == torch.float32 else torch.finfo(dtype).eps
    error = (ours.float() - expected.float()).norm()
    assert error <= (MAX_ERROR + rounding) * expected.float().norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("num_rows", "num_in", "num_out"),
    [(1, 64, 64), (17, 100, 65), (65, 129, 7), (130, 64, 130), (3, 1, 1), (0, 64, 64)],
)
def test_product_is_near_the_exact_one(num_rows, num_in, num_out, dtype, randn):
    assert_near_the_reference(num_rows, num_in, num_out, randn, dtype)


@pytest.mark.parametrize(("num_rows", "num_in", "num_out"), WIDE, ids=str)
def test_products_as_wide_as_those_of_the_published_model(
    num_rows, num_in, num_out, randn, compared_rows
):
    assert_near_the_reference(num_rows, num_in, num_out, randn, compared=compared_rows(num_rows))


@pytest.mark.parametrize("capability", TILES)
def test_row_has_the_same_bits_in_every_tile_of_a_capability(capability, randn, monkeypatch):
    """On a GPU these are the bits of its own instructions; the interpreter shows the order."""
    if not IS_INTERPRETED and capability != kernel.gpu_capability():
        pytest.skip("tiles of another GPU")
    x = randn(150, 304)  # a width that a tensor descriptor takes
    weight, scales = quantized_weight(70, 304, x.device)
    monkeypatch.setattr(kernel, "gpu_capability", lambda: capability)
    together = fp8_linear(x, weight, scales)
    for first, last in [(0, 1), (149, 150), (3, 19), (60, 124)]:
        assert torch.equal(fp8_linear(x[first:last], weight, scales), together[first:last])


@pytest.mark.parametrize("capability", [0, 89, 90])
def test_every_capability_has_a_tile_for_any_number_of_rows(capability):
    found = [tile_for(capability, num_rows) for num_rows in (1, 16, 17, 64, 65, 1025, 30_000)]
    assert all(isinstance(tile, Tile) for tile in found)
    assert [tile.rows for tile in found] == sorted(tile.rows for tile in found)
    assert tiles.OTHER_CAPABILITY in TILES


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("factor", [0.0, 1e-40, 1e-30, 1.0, 1e30], ids=str)
def test_rows_of_any_size_are_quantized_as_the_reference_does(factor, dtype, randn):
    # From numbers that become 0 to those that set the scale.
    x = (randn(3, 1000) * torch.logspace(-6, 0, 1000, device=randn(1).device) * factor).to(dtype)
    if not x.isfinite().all():
        x = x.nan_to_num()
    assert_same_rows(kernel.quantize_rows(x), reference.quantize_rows(x.cpu()))


def test_halfway_numbers_are_rounded_as_the_reference_does(device):
    numbers = torch.arange(2**8).to(torch.uint8).view(reference.FP8).float()
    numbers = numbers[numbers.isfinite()].sort().values
    x = torch.cat((numbers, (numbers[1:] + numbers[:-1]) / 2))[None]
    ours = kernel.quantize_rows(x.to(device))
    assert_same_rows(ours, reference.quantize_rows(x))
    # 448 is the largest, so that the scale is 1 and numbers of e4m3 stay themselves.
    assert torch.equal(ours.values[0, : len(numbers)].cpu().float(), numbers)
