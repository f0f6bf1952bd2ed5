"""Measures the speed of the int8 product with other tiles; the bits must stay the same."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.first_gpu import project
from bench.first_gpu.project import Tile
from bench.first_gpu.run import Run
from bench.first_gpu.timing import kernel_s

# All compile for compute capability 9.0 without spilled registers.
TILES = (
    Tile(128, 128, 64, 8, 3),
    Tile(128, 256, 64, 8, 3),
    Tile(256, 128, 64, 8, 3),
    Tile(128, 128, 128, 8, 3),
    Tile(128, 256, 128, 8, 3),
    Tile(256, 128, 128, 8, 3),
    Tile(128, 256, 64, 8, 4),
)
FEW_ROWS = 2048


@dataclass(frozen=True)
class Product:
    """Random operands of one product of int8 rows."""

    x: Tensor  # [T, in]
    weight: Tensor  # [out, in]
    scales: tuple[Tensor, Tensor]  # [T] and [out]

    @classmethod
    def random(cls, run: Run, num_rows: int, num_in: int, num_out: int) -> "Product":
        """Make operands on the device, the same each time."""
        torch.manual_seed(1)
        x, weight = (
            torch.randint(-127, 128, (size, num_in), dtype=torch.int8, device=run.device)
            for size in (num_rows, num_out)
        )
        scales = torch.rand(num_rows, device=run.device), torch.rand(num_out, device=run.device)
        return cls(x, weight, scales)

    def multiply(self, tile: Tile) -> Tensor:
        """Compute the product with a tile: [T, out] bfloat16."""
        size = (len(self.x), len(self.weight))
        y = torch.empty(size, dtype=torch.bfloat16, device=self.x.device)
        project.launch_int8_product(self.x, self.weight, self.scales, y, tile)
        return y


def title(tile: Tile) -> str:
    """Return the name of a tile in the figures."""
    size = f"{tile.rows}x{tile.outputs}x{tile.inputs}"
    return f"int8 tile {size} {tile.num_warps} warps {tile.num_stages} stages"


def compile_tiles(run: Run) -> None:
    """Compile all tiles while tests run, so that `measure_tiles` does not wait for it."""
    if not run.is_on_gpu:
        run.put("tiles: no kernels here")
        return
    product = Product.random(run, 256, run.sizes.hidden, run.sizes.intermediate)
    for tile in TILES:
        with run.part(f"compile {title(tile)}"):
            product.multiply(tile)
            run.synchronize()


def measure_tiles(run: Run) -> None:
    """Measure all tiles with one shape, then the first and the fastest with the others."""
    if not run.is_on_gpu:
        run.put("tiles: no kernels here")
        return
    hidden, wide, rows = run.sizes.hidden, run.sizes.intermediate, run.sizes.rows
    took_s: dict[Tile, float] = {}
    product = Product.random(run, rows, hidden, wide)
    reference = product.multiply(TILES[0])
    for tile in TILES:
        with run.part(title(tile), needs_s=2):
            is_same = bool((product.multiply(tile) == reference).all())
            took_s[tile] = kernel_s(run, lambda: product.multiply(tile))  # noqa: B023
            speed = _tera_per_s((rows, hidden, wide), took_s[tile])
            run.put(title(tile), tera_per_s=speed, has_same_bits=is_same)
    fastest = min(took_s, key=took_s.__getitem__, default=TILES[0])
    shapes = {
        "qkvo": (rows, hidden, hidden),
        "down": (rows, wide, hidden),
        f"gate_up of {FEW_ROWS:,} rows": (FEW_ROWS, hidden, wide),
    }
    for name, shape in shapes.items():
        product = Product.random(run, *shape)
        for tile in dict.fromkeys((TILES[0], fastest)):
            with run.part(f"{title(tile)}, {name}", needs_s=4):
                seconds = kernel_s(run, lambda: product.multiply(tile))  # noqa: B023
                run.put(f"{title(tile)}, {name}", tera_per_s=_tera_per_s(shape, seconds))


def _tera_per_s(shape: tuple[int, int, int], seconds: float) -> float:
    return round(2 * math.prod(shape) / seconds / 1e12, 1)
