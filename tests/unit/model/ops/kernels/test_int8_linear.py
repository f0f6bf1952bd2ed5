"""The int8 kernels: the same bits as the reference, whatever the blocks and the batch mates."""

import pytest
import torch
import triton

from model.ops.int8_linear import kernel, reference
from model.ops.int8_linear.tiles import TILES, tile_for
from model.ops.tiled_product.kernel import GROUP_SIZE
from model.ops.tiled_product.tiles import Tile

IS_INTERPRETED = triton.knobs.runtime.interpret
# Rows, inputs and outputs. The interpreter is slow: it computes few rows and outputs.
WIDE = [(8200, 4096, 22_016), (3000, 11_008, 4096)]
if IS_INTERPRETED:
    WIDE = [(130, 4096, 7), (70, 11_008, 5)]
TALL = sorted({tiles[-1][1] for tiles in TILES.values()}, key=str)


def int8_linear(x, weight, absmax):
    return kernel.int8_linear(kernel.quantize_rows(x), weight, absmax)


def quantized_weight(num_out, num_in, device):
    """A weight as bitsandbytes stores it."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randint(-127, 128, (num_out, num_in), generator=generator, dtype=torch.int8)
    return weight.to(device), torch.rand(num_out, generator=generator).to(device) + 0.1


def assert_same_rows(ours, expected):
    torch.testing.assert_close(ours.values.cpu(), expected.values, rtol=0, atol=0)
    torch.testing.assert_close(ours.scales.cpu(), expected.scales, rtol=0, atol=0)
    assert ours.dtype == expected.dtype


def assert_bits_of_the_reference(
    num_rows, num_in, num_out, randn, dtype=torch.float32, compared=slice(None)
):
    x = randn(num_rows, num_in, dtype=dtype)
    weight, absmax = quantized_weight(num_out, num_in, x.device)
    rows = reference.quantize_rows(x.cpu()[compared])
    expected = reference.int8_linear(rows, weight.cpu(), absmax.cpu())
    ours = int8_linear(x, weight, absmax).cpu()
    assert ours.isfinite().all()
    torch.testing.assert_close(ours[compared], expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("num_rows", "num_in", "num_out"),
    [(1, 64, 64), (17, 100, 65), (65, 129, 7), (130, 64, 130), (3, 1, 1), (0, 64, 64)],
)
def test_kernel_gives_the_bits_of_the_reference(num_rows, num_in, num_out, dtype, randn):
    assert_bits_of_the_reference(num_rows, num_in, num_out, randn, dtype)


@pytest.mark.parametrize("tile", TALL, ids=str)
def test_every_group_of_tiles_gives_the_bits_of_the_reference(tile, randn, monkeypatch):
    """Programs go through groups of rows of tiles; here are a full group and a part of one."""
    num_rows, num_out = (GROUP_SIZE.value + 2) * tile.rows + 5, tile.outputs + 7
    monkeypatch.setattr(kernel, "tile_for", lambda capability, num_rows: tile)
    assert_bits_of_the_reference(num_rows, 100, num_out, randn)


@pytest.mark.parametrize(("num_rows", "num_in", "num_out"), WIDE, ids=str)
def test_products_as_wide_as_those_of_the_published_model(
    num_rows, num_in, num_out, randn, compared_rows
):
    assert_bits_of_the_reference(num_rows, num_in, num_out, randn, compared=compared_rows(num_rows))


@pytest.mark.parametrize("capability", TILES)
def test_few_rows_of_a_wide_product_are_compared_but_some_of_every_tile(capability, compared_rows):
    rows, tile = compared_rows(8200), tile_for(capability, 8200)
    assert torch.equal((rows // tile.rows).unique(), (torch.arange(8200) // tile.rows).unique())
    assert rows[-1] == 8199
    assert len(rows) < 150


@pytest.mark.parametrize("capability", [0, 75, 80, 86, 87, 89, 90, 100, 120])
def test_every_capability_has_a_tile_for_any_number_of_rows(capability):
    tiles = [tile_for(capability, num_rows) for num_rows in (1, 16, 17, 64, 65, 1025, 30_000)]
    assert all(isinstance(tile, Tile) for tile in tiles)
    assert [tile.rows for tile in tiles] == sorted(tile.rows for tile in tiles)


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e30], ids=["zero", "tiny", "huge"])
def test_rows_of_any_size_are_quantized_as_the_reference_does(factor, randn):
    x = randn(2, 100) * factor
    ours, expected = kernel.quantize_rows(x), reference.quantize_rows(x.cpu())
    assert_same_rows(ours, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_numbers_halfway_between_two_int8_are_rounded_as_the_reference_does(dtype, device):
    largest = torch.arange(2, 256, 2)[:, None]
    whole_numbers = torch.arange(256).minimum(largest).to(dtype)
    ours = kernel.quantize_rows(whole_numbers.to(device))
    assert_same_rows(ours, reference.quantize_rows(whole_numbers))
