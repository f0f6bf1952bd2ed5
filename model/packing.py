"""Where sequences that lie end to end in one row of tokens are cut into windows and chunks.

`T` is the number of tokens of all sequences together. Knows lengths only: no tokens, no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """The windows and chunks of a packed row.

    A segment is one window of one sequence. Its queries are `segment_lengths` tokens from
    `segment_starts` on; its keys are `num_summaries` chunk summaries from `summary_starts` on and
    then its own tokens, each query seeing those up to itself. Summary `c` stands for the
    `chunk_size` tokens from `chunk_starts[c]` on. Only chunks that some later window reads have a
    summary.
    """

    chunk_size: int
    positions: IntArray  # [T], from 0 in each sequence
    segment_starts: IntArray  # [segments]
    segment_lengths: IntArray  # [segments], 1..window_size
    summary_starts: IntArray  # [segments]
    num_summaries: IntArray  # [segments]
    chunk_starts: IntArray  # [C]

    @property
    def num_tokens(self) -> int:
        """The number of tokens of all sequences together."""
        return len(self.positions)


def lay_out(lengths: Sequence[int], *, window_size: int, chunk_size: int) -> PackedLayout:
    """Cut sequences of `lengths` tokens; `chunk_size` divides `window_size`."""
    tokens = np.asarray(lengths, dtype=np.int64)
    windows = -(-tokens // window_size)
    chunks = np.maximum(windows - 1, 0) * (window_size // chunk_size)
    token_starts, chunk_offsets = _starts(tokens), _starts(chunks)

    window_of_segment = _count_within(windows)
    queries_before = window_of_segment * window_size
    return PackedLayout(
        chunk_size=chunk_size,
        positions=_count_within(tokens),
        segment_starts=np.repeat(token_starts, windows) + queries_before,
        segment_lengths=np.minimum(np.repeat(tokens, windows) - queries_before, window_size),
        summary_starts=np.repeat(chunk_offsets, windows),
        num_summaries=queries_before // chunk_size,
        chunk_starts=np.repeat(token_starts, chunks) + _count_within(chunks) * chunk_size,
    )


def _starts(lengths: IntArray) -> IntArray:
    """Where each of `lengths` begins when they lie end to end."""
    return np.cumsum(lengths) - lengths


def _count_within(lengths: IntArray) -> IntArray:
    """0, 1, ... within each of `lengths`, end to end."""
    return np.arange(lengths.sum()) - np.repeat(_starts(lengths), lengths)
