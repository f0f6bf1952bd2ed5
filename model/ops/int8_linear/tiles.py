"""Chooses the tile of an int8 product by compute capability and number of rows; needs no Triton.

A tile of T rows by O outputs reads T + O bytes for T * O products, so that large tiles need less of
the L2 cache. What decides between them, from data sheets and from the compiled code:

| | A100 (8.0) | A10 (8.6) | L4 (8.9) | H100 (9.0) |
|---|---|---|---|---|
| int8 peak, TOPS | 624 | 250 | 242 | 1979 |
| L2 traffic at that peak, 128 x 128 tiles, TB/s | 4.9 | 2.0 | 1.9 | 15.5 |
| L2 traffic at that peak, 128 x 256 tiles, TB/s | 3.7 | 1.5 | 1.4 | 11.6 |
| streaming multiprocessors (SMs) | 108 | 72 | 58 | 132 |
| rows that give each SM a 128 x 256 tile of 4,096 outputs | 864 | 576 | 464 | 1056 |

- Above the rows of the last line, rounded, a tile has 128 x 256 numbers. Its int32 sums and its
  operands take 205 to 212 of 255 registers; a larger tile spills them. CUTLASS has the same default
  for int8 on compute capability 8.0 (`default_gemm_configuration.h`). An H100 still waits for its
  L2 cache, which gives about 5.5 of the 11.6 TB/s.
- Below, a tile of 128 x 128 gives work to twice as many SMs, and two of them fit on one SM.
- With few rows most of a tall tile is idle, and the product waits for the weights anyway.
- A text of 65 to 256 bytes that comes alone has 32 or 64 such tiles where a product has 4,096
  outputs, so that half of an H100 is idle. Tiles of 64 rows would give work to all of it, and read
  the weights twice as often from the L2 cache, those of the wide products too: for 208 rows 1.1
  instead of 0.7 GB a layer. The benchmark of a GPU measures both.
- A step of a large tile reads 64 inputs, a row of 64 bytes. On an H100 it reads 128, the longest
  row that its asynchronous tensor-core instructions (wgmma) take from shared memory.
- On an H100 the large tile is read by descriptor (`tiled_product/launch.py`), which takes all 255
  registers. The benchmark of a GPU measures the plain form beside it, and the faster one belongs
  here. A product of fewer rows has about one tile for each SM, so it takes the plain form.
- On an H100 Triton 3.6 and 3.7 let only float32 sums stay in flight: the int8 products of a step
  end before those of the next begin (`wgmma.wait_group 0` in the loop). A step of a large tile
  takes about 1,000 cycles at the peak, so the wait costs little; the benchmark has a tile with 256
  inputs too.
- Stages hide the latency of a load as far as shared memory goes: one thread block may have 163 KiB
  (8.0), 99 KiB (8.6 and 8.9) or 227 KiB (9.0).

Nothing here was measured on a GPU. The tests compile each tile for its capability: no register is
spilled, and shared memory suffices.
"""

from model.ops.tiled_product.tiles import Tile, TilesByRows, choose_tile

_FEW = ((16, Tile(16, 64, 128, 4, 3)), (64, Tile(64, 64, 128, 4, 3)))
_SMALL_SHARED = (*_FEW, (512, Tile(128, 128, 64, 8, 3)), (None, Tile(128, 256, 64, 8, 4)))

# By compute capability.
TILES: dict[int, TilesByRows] = {
    80: (*_FEW, (1024, Tile(128, 128, 64, 8, 3)), (None, Tile(128, 256, 64, 8, 4))),
    86: _SMALL_SHARED,
    89: _SMALL_SHARED,
    90: (
        *_FEW,
        (1024, Tile(128, 128, 128, 8, 3)),
        (None, Tile(128, 256, 128, 8, 4, by_descriptor=True)),
    ),
}
# Tiles for other capabilities: those that need the least shared memory.
OTHER_CAPABILITY = 89


def tile_for(capability: int, num_rows: int) -> Tile:
    """Return the tile for a product of `num_rows` rows; capability 89 means 8.9."""
    return choose_tile(TILES.get(capability, TILES[OTHER_CAPABILITY]), num_rows)
