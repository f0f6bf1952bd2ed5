"""Launches the product of 8-bit matrices over all of its tiles, in the form that its tile names.

* Plain: one program for each tile, whose threads compute addresses. Every GPU has it.
* By descriptor, on compute capability 9.0: the tensor memory accelerator reads the operands. One
  program for each streaming multiprocessor computes tiles in turn (a persistent kernel), and begins
  to read the next tile while it stores the last one.

Both compute the same sums in the same order.
"""

from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from model.ops.tiled_product.tiles import Tile

# Descriptors need rows and addresses that are multiples of this (CUDA Driver API,
# cuTensorMapEncodeTiled).
DESCRIPTOR_BYTES = 16


def launch_product(
    kernel: Any,
    operands: tuple[Tensor, Tensor],
    scales: tuple[Tensor, Tensor],
    y: Tensor,
    tile: Tile,
) -> None:
    """Launch `kernel`, that of the int8 or the fp8 product, with `tile`.

    operands: rows [T, in] and weight [out, in] of 8-bit numbers; scales: of the rows [T] and of the
    weight [out], float32; y: [T, out], receives the products. All are contiguous.
    """
    x, weight = operands
    (num_rows, num_in), num_out = x.shape, len(weight)
    by_descriptor = tile.by_descriptor and may_be_described(x) and may_be_described(weight)
    num_programs = tile.num_programs(num_rows, num_out)
    if by_descriptor:
        num_programs = min(num_programs, num_processors(x.device))
        # For this thread: a new one has no allocator.
        triton.set_allocator(_scratch)
    kernel[(num_programs,)](
        x,
        weight,
        *scales,
        y,
        num_rows,
        NUM_IN=num_in,
        NUM_OUT=num_out,
        BY_DESCRIPTOR=by_descriptor,
        **tile.launch_config(),
    )


def may_be_described(matrix: Tensor) -> bool:
    """Whether a tensor descriptor can describe a contiguous matrix of 8-bit numbers."""
    # PyTorch's allocations begin at multiples of 512.
    return matrix.shape[1] % DESCRIPTOR_BYTES == 0 == matrix.storage_offset() % DESCRIPTOR_BYTES


@cache
def num_processors(device: torch.device) -> int:
    """Return the number of streaming multiprocessors of a GPU; without one, as in the tests, 1."""
    if not torch.cuda.is_available():
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _scratch(num_bytes: int, alignment: int, stream: int | None) -> Tensor:
    """Return memory of the GPU for the descriptors that a kernel makes."""
    return torch.empty(num_bytes, dtype=torch.int8, device="cuda")
