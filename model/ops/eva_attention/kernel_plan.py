"""Assigns blocks of queries to the programs of the attention kernel; needs no Triton."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.packing import PackedLayout


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """The blocks of queries of a layout; all layers and heads share it.

    `blocks`: [blocks, 5] int64: the segment's first token, its length, the block's first query
    counted from there, the segment's first summary and its number of summaries.
    """

    blocks: Tensor
    dtype: torch.dtype
    num_tokens: int
    num_summaries: int  # rows of the past that some segment sees


def plan_attention(layout: PackedLayout, *, dtype: torch.dtype, device: torch.device) -> KernelPlan:
    """Cut the segments of `layout` into blocks of queries; blocks with the most keys come first.

    The GPU starts programs in order, so no long one is left for the end.
    """
    block_q = queries_per_block(dtype)
    num_blocks = -(-layout.segment_lengths // block_q)
    segments = np.repeat(np.arange(len(num_blocks)), num_blocks)
    block_of_segment = np.arange(len(segments)) - np.repeat(
        np.cumsum(num_blocks) - num_blocks, num_blocks
    )
    first_queries = block_of_segment * block_q
    columns = (
        layout.segment_starts[segments],
        layout.segment_lengths[segments],
        first_queries,
        layout.summary_starts[segments],
        layout.num_summaries[segments],
    )
    most_keys_first = np.argsort(-(first_queries + columns[-1]), kind="stable")
    blocks = np.stack(columns, axis=1)[most_keys_first]
    return KernelPlan(
        blocks=torch.from_numpy(blocks).to(device),
        dtype=dtype,
        num_tokens=layout.num_tokens,
        num_summaries=int((layout.summary_starts + layout.num_summaries).max(initial=0)),
    )


def queries_per_block(dtype: torch.dtype) -> int:
    """Return how many queries share one read of the keys; float32 queries fill the registers."""
    return 16 if dtype == torch.float32 else 64
