"""Holds the steps that the Triton kernels of all linear layers share.

A tile is a block of rows by a block of outputs. A program computes one tile, or with tensor
descriptors several in turn. It reads a step of inputs at a time.
"""

import triton
import triton.language as tl

# Blocks of rows that share a stripe of the weight while it is in the L2 cache.
GROUP_SIZE = tl.constexpr(8)


@triton.jit
def blocks_of_tile(
    tile, num_rows, NUM_OUT: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_O: tl.constexpr
):
    """Return the numbers of the block of rows and of the block of outputs of tile number `tile`.

    Tiles with neighbouring numbers form a square of blocks: programs that compute them together
    share rows and weights in the L2 cache.
    """
    num_row_blocks, num_output_blocks = tl.cdiv(num_rows, BLOCK_T), tl.cdiv(NUM_OUT, BLOCK_O)
    group_size = GROUP_SIZE * num_output_blocks
    first_row_block = tile // group_size * GROUP_SIZE
    group_rows = tl.minimum(num_row_blocks - first_row_block, GROUP_SIZE)
    place = tile % group_size
    return first_row_block + place % group_rows, place // group_rows


@triton.jit
def numbers_of_block(block, SIZE: tl.constexpr):
    """Return the numbers [SIZE] of the rows or outputs of a block, int64."""
    return block.to(tl.int64) * SIZE + tl.arange(0, SIZE)


@triton.jit
def tile_of_program(num_rows, NUM_OUT: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_O: tl.constexpr):
    """Return the rows [BLOCK_T] and the outputs [BLOCK_O] of this program's tile, int64."""
    row_block, output_block = blocks_of_tile(tl.program_id(0), num_rows, NUM_OUT, BLOCK_T, BLOCK_O)
    return numbers_of_block(row_block, BLOCK_T), numbers_of_block(output_block, BLOCK_O)


@triton.jit
def describe_inputs(
    matrix_ptr, num_rows, NUM_IN: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_I: tl.constexpr
):
    """Return the descriptor of a matrix [num_rows, NUM_IN]; `.load([row, input])` reads a block.

    Outside the matrix it reads zeros. The hardware computes addresses and bounds.
    """
    return tl.make_tensor_descriptor(
        matrix_ptr, [num_rows, NUM_IN], [NUM_IN, 1], [BLOCK_R, BLOCK_I]
    )


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
