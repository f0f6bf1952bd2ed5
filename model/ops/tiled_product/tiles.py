"""Describes the tiles of a product of rows and a weight; needs no Triton."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tile:
    """The block of rows by outputs that a program computes, and the inputs that it reads a step."""

    rows: int
    outputs: int
    inputs: int
    num_warps: int
    num_stages: int
    # Whether the tensor memory accelerator (TMA) of compute capability 9.0 reads it, see `launch`.
    by_descriptor: bool = False

    def num_programs(self, num_rows: int, num_out: int) -> int:
        """Return how many of these tiles cover a product of `num_rows` by `num_out` numbers."""
        num_row_blocks = -(-num_rows // self.rows)
        return num_row_blocks * -(-num_out // self.outputs)

    def launch_config(self) -> dict[str, int]:
        """Return the tile as arguments of a kernel launch."""
        return {
            "BLOCK_T": self.rows,
            "BLOCK_O": self.outputs,
            "BLOCK_I": self.inputs,
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
        }


# Tiles of one compute capability, each with the largest number of rows that it is for.
TilesByRows = tuple[tuple[int | None, Tile], ...]


def choose_tile(tiles: TilesByRows, num_rows: int) -> Tile:
    """Return the first of `tiles` that is for a product of `num_rows` rows."""
    return next(tile for most, tile in tiles if most is None or num_rows <= most)
