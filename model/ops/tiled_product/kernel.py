"""Holds the steps that the Triton kernels of all linear layers share.

Each program multiplies one tile: a block of rows by a block of outputs. It reads a step of inputs
at a time.
"""

import triton
import triton.language as tl

# Blocks of rows that share a stripe of the weight while it is in the L2 cache.
GROUP_SIZE = tl.constexpr(8)


@triton.jit
def tile_of_program(num_rows, NUM_OUT: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_O: tl.constexpr):
    """Return the rows [BLOCK_T] and the outputs [BLOCK_O] of this program, int64.

    Programs that run together form a square of blocks and share rows and weights in the L2 cache.
    """
    num_row_blocks, num_output_blocks = tl.cdiv(num_rows, BLOCK_T), tl.cdiv(NUM_OUT, BLOCK_O)
    group_size = GROUP_SIZE * num_output_blocks
    first_row_block = tl.program_id(0) // group_size * GROUP_SIZE
    group_rows = tl.minimum(num_row_blocks - first_row_block, GROUP_SIZE)
    place = tl.program_id(0) % group_size
    row_block, output_block = first_row_block + place % group_rows, place // group_rows
    rows = row_block.to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    outputs = output_block.to(tl.int64) * BLOCK_O + tl.arange(0, BLOCK_O)
    return rows, outputs


@triton.jit
def first_inputs(matrix_ptr, rows, NUM_IN: tl.constexpr, BLOCK_I: tl.constexpr):
    """Return pointers to the first BLOCK_I inputs of `rows` of a matrix with NUM_IN columns."""
    return matrix_ptr + rows[:, None] * NUM_IN + tl.arange(0, BLOCK_I)[None, :]


@triton.jit
def load_inputs(inputs_ptr, is_row, first, NUM_IN: tl.constexpr, BLOCK_I: tl.constexpr):
    """Load what `inputs_ptr` points to, inputs from `first` on; zeros outside the matrix."""
    mask = is_row[:, None]
    if NUM_IN % BLOCK_I != 0:
        mask = mask & (tl.arange(0, BLOCK_I) < NUM_IN - first)[None, :]
    return tl.load(inputs_ptr, mask=mask, other=0.0)


@triton.jit
def store_tile(y_ptr, y, rows, outputs, num_rows, NUM_OUT: tl.constexpr):
    """Store the products of `rows` and `outputs` in the type of `y_ptr` [num_rows, NUM_OUT]."""
    tl.store(
        y_ptr + rows[:, None] * NUM_OUT + outputs[None, :],
        y.to(y_ptr.dtype.element_ty),
        mask=(rows < num_rows)[:, None] & (outputs < NUM_OUT)[None, :],
    )
