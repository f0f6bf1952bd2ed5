"""Chooses the tile of an fp8 product by compute capability and number of rows; needs no Triton.

A row must have the same bits whatever the number of rows. So all tiles of a capability read the
same 128 inputs per step, and multiply with one kind of instruction: `mma` of 16 x 8 x 32 on 8.9,
`wgmma` of 64 rows and 32 inputs on 9.0, which takes 64 rows or more. Between tiles only the rows
and outputs of an instruction differ. No document says that the order of sums inside an instruction
is the same for each; the benchmark of a GPU compares the bits.

On 9.0 the large tile is read by descriptor (`tiled_product/launch.py`). That changes how operands
come to the instructions, not what these compute.

Sums take twice the registers of int8, since each step has sums of its own (see `kernel.py`). So a
tile has 128 x 128 numbers at most. At the fp8 peak of an L4 such tiles need 1.9 TB/s from the L2
cache, and 15.5 TB/s on an H100, which gives about 5.5. There the tile limits the product to about a
third of the peak. Nothing here was measured on a GPU. The tests compile each tile.
"""

from model.ops.tiled_product.tiles import Tile, TilesByRows, choose_tile

# By compute capability.
TILES: dict[int, TilesByRows] = {
    89: (
        (16, Tile(16, 64, 128, 4, 3)),
        (64, Tile(64, 64, 128, 4, 3)),
        (None, Tile(128, 128, 128, 8, 3)),
    ),
    90: ((64, Tile(64, 64, 128, 4, 4)), (None, Tile(128, 128, 128, 8, 4, by_descriptor=True))),
}
# What has no entry has no fp8 product; Triton's interpreter, of capability 0, takes this one.
OTHER_CAPABILITY = 89


def tile_for(capability: int, num_rows: int) -> Tile:
    """Return the tile for a product of `num_rows` rows; capability 89 means 8.9."""
    return choose_tile(TILES.get(capability, TILES[OTHER_CAPABILITY]), num_rows)
