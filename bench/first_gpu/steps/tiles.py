"""Measures the int8 and fp8 products with other tiles and forms; the bits must stay the same."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.first_gpu import project
from bench.first_gpu.project import Tile
from bench.first_gpu.run import Run
from bench.first_gpu.timing import kernel_s

# All compile for compute capability 9.0 without spilled registers. Other capabilities have no
# descriptors.
TILES: dict[torch.dtype, tuple[Tile, ...]] = {
    torch.int8: (
        Tile(128, 128, 64, 8, 3),
        Tile(128, 256, 64, 8, 3),
        Tile(256, 128, 64, 8, 3),
        Tile(128, 128, 128, 8, 3),
        Tile(128, 256, 128, 8, 3),
        Tile(256, 128, 128, 8, 3),
        Tile(128, 256, 64, 8, 4),
        Tile(128, 256, 128, 8, 4),
        Tile(128, 256, 128, 8, 4, by_descriptor=True),
        Tile(256, 128, 128, 8, 3, by_descriptor=True),
        Tile(128, 128, 128, 8, 4, by_descriptor=True),
        Tile(128, 256, 256, 8, 2, by_descriptor=True),
    ),
    torch.float8_e4m3fn: (
        Tile(128, 128, 128, 8, 4),
        Tile(128, 128, 128, 8, 4, by_descriptor=True),
    ),
}
FEW_ROWS = 2048
# Tiles for the products of a text that comes alone, and the rows of one of 200 bytes.
LONE_TEXT_TILES: dict[torch.dtype, tuple[Tile, ...]] = {
    torch.int8: (
        Tile(64, 64, 128, 4, 3),
        Tile(64, 128, 128, 4, 4),
        Tile(128, 128, 128, 8, 3),
    ),
    torch.float8_e4m3fn: (
        Tile(64, 64, 128, 4, 4),
        Tile(64, 128, 128, 4, 4),
        Tile(128, 128, 128, 8, 4),
    ),
}
LONE_TEXT_ROWS = 208


@dataclass(frozen=True)
class Product:
    """Random operands of one product of rows of 8-bit numbers."""

    x: Tensor  # [T, in]
    weight: Tensor  # [out, in]
    scales: tuple[Tensor, Tensor]  # [T] and [out]

    @classmethod
    def random(cls, run: Run, dtype: torch.dtype, *shape: int) -> "Product":
        """Make operands on the device, the same each time; shape: rows, inputs and outputs."""
        torch.manual_seed(1)
        num_rows, num_in, num_out = shape
        # Whole numbers up to 127; e4m3 rounds some of them.
        x, weight = (
            torch.randint(-127, 128, (size, num_in), dtype=torch.int8, device=run.device).to(dtype)
            for size in (num_rows, num_out)
        )
        scales = torch.rand(num_rows, device=run.device), torch.rand(num_out, device=run.device)
        return cls(x, weight, scales)

    def multiply(self, tile: Tile) -> Tensor:
        """Compute the product with a tile: [T, out] bfloat16."""
        size = (len(self.x), len(self.weight))
        y = torch.empty(size, dtype=torch.bfloat16, device=self.x.device)
        project.launch_product(self.x, self.weight, self.scales, y, tile)
        return y


def title(dtype: torch.dtype, tile: Tile) -> str:
    """Return the name of a product with a tile in the figures."""
    kind = "int8" if dtype == torch.int8 else "fp8"
    size = f"{tile.rows}x{tile.outputs}x{tile.inputs}"
    form = " by descriptor" if tile.by_descriptor else ""
    return f"{kind} tile {size} {tile.num_warps} warps {tile.num_stages} stages{form}"


def tiles_here(run: Run, dtype: torch.dtype) -> list[Tile]:
    """Return the tiles that this GPU can compute."""
    capability = project.gpu_capability()
    if dtype != torch.int8 and capability < 89:
        return []
    has_descriptors = capability == 90 and run.by_descriptor
    return [tile for tile in TILES[dtype] if has_descriptors or not tile.by_descriptor]


def compile_tiles(run: Run) -> None:
    """Compile all tiles while tests run, so that `measure_tiles` does not wait for it."""
    if not run.is_on_gpu:
        run.put("tiles: no kernels here")
        return
    for dtype in TILES:
        product = Product.random(run, dtype, 256, run.sizes.hidden, run.sizes.intermediate)
        for tile in tiles_here(run, dtype):
            with run.part(f"compile {title(dtype, tile)}"):
                product.multiply(tile)
                run.synchronize()
        if tiles_here(run, dtype):
            run_lone_text_tiles(run, dtype, is_timed=False)


def measure_tiles(run: Run) -> None:
    """Measure all tiles of both products."""
    if not run.is_on_gpu:
        run.put("tiles: no kernels here")
        return
    for dtype in TILES:
        if tiles := tiles_here(run, dtype):
            _measure_tiles_of(run, dtype, tiles)
            run_lone_text_tiles(run, dtype, is_timed=True)


def _measure_tiles_of(run: Run, dtype: torch.dtype, tiles: Sequence[Tile]) -> None:
    """Measure all tiles with one shape, then the first and the fastest with the others."""
    hidden, wide, rows = run.sizes.hidden, run.sizes.intermediate, run.sizes.rows
    took_s: dict[Tile, float] = {}
    product = Product.random(run, dtype, rows, hidden, wide)
    reference = product.multiply(tiles[0])
    for tile in tiles:
        with run.part(title(dtype, tile), needs_s=2):
            is_same = bool((product.multiply(tile) == reference).all())
            took_s[tile] = kernel_s(run, lambda: product.multiply(tile))  # noqa: B023
            speed = _tera_per_s((rows, hidden, wide), took_s[tile])
            run.put(title(dtype, tile), tera_per_s=speed, has_same_bits=is_same)
    fastest = min(took_s, key=took_s.__getitem__, default=tiles[0])
    shapes = {
        "qkvo": (rows, hidden, hidden),
        "down": (rows, wide, hidden),
        f"gate_up of {FEW_ROWS:,} rows": (FEW_ROWS, hidden, wide),
    }
    for name, shape in shapes.items():
        product = Product.random(run, dtype, *shape)
        for tile in dict.fromkeys((tiles[0], fastest)):
            what = f"{title(dtype, tile)}, {name}"
            with run.part(what, needs_s=4):
                seconds = kernel_s(run, lambda: product.multiply(tile))  # noqa: B023
                run.put(what, tera_per_s=_tera_per_s(shape, seconds))


def run_lone_text_tiles(run: Run, dtype: torch.dtype, *, is_timed: bool) -> None:
    """Compute the products of a lone text with each tile.

    Small tiles help those with few outputs, and read more for the others.
    """
    hidden, wide = run.sizes.hidden, run.sizes.intermediate
    shapes = {"qkvo": (hidden, hidden), "down": (wide, hidden), "gate_up": (hidden, wide)}
    for name, (num_in, num_out) in shapes.items():
        product = Product.random(run, dtype, LONE_TEXT_ROWS, num_in, num_out)
        reference = product.multiply(LONE_TEXT_TILES[dtype][-1])
        for tile in LONE_TEXT_TILES[dtype]:
            what = f"{title(dtype, tile)}, {name} of {LONE_TEXT_ROWS} rows"
            with run.part(what, needs_s=2):
                is_same = bool((product.multiply(tile) == reference).all())
                if is_timed:
                    us = round(kernel_s(run, lambda: product.multiply(tile)) * 1e6, 1)  # noqa: B023
                    run.put(what, us=us, has_same_bits=is_same)


def _tera_per_s(shape: tuple[int, int, int], seconds: float) -> float:
    return round(2 * math.prod(shape) / seconds / 1e12, 1)
