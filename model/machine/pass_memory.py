"""Computes how many bytes a pass may read, from the measured memory of two passes.

It knows no device: the caller measures.
"""

from dataclasses import dataclass

import numpy as np

from model.evabyte.configuration import EvaByteConfig
from model.packing import ContextRows

# The rest is for fragments, workspaces of libraries, and passes with other mixes of texts.
USABLE_SHARE = 0.8
# In shorter passes, starting the operations takes longer than computing them, on any device.
MIN_PASS_BYTES = 256


@dataclass(frozen=True, slots=True)
class Peak:
    """The most memory that a pass over `num_bytes` of text took in addition."""

    num_bytes: int
    memory_bytes: int


def pass_bytes_that_fit(
    small: Peak, large: Peak, *, free_bytes: int, carried_bytes: int, wanted_bytes: int
) -> int:
    """Return how many bytes a pass may read: `wanted_bytes`, or less where memory is short.

    A pass takes a fixed amount and an amount per byte: two passes of different size tell both.
    `carried_bytes` stay in memory besides, see `carried_bytes_of`. A pass reads `MIN_PASS_BYTES`
    at least.
    """
    assert small.num_bytes < large.num_bytes
    grown = large.memory_bytes - small.memory_bytes
    per_byte = max(grown / (large.num_bytes - small.num_bytes), 1.0)
    fixed = max(small.memory_bytes - per_byte * small.num_bytes, 0.0)
    num_fitting = (USABLE_SHARE * free_bytes - carried_bytes - fixed) / per_byte
    whole_steps = int(num_fitting) // MIN_PASS_BYTES * MIN_PASS_BYTES
    return max(min(wanted_bytes, whole_steps), min(wanted_bytes, MIN_PASS_BYTES))


def carried_bytes_of(config: EvaByteConfig, num_bytes: int, *, bytes_per_value: int) -> int:
    """Return the largest KV cache of one text of `num_bytes`, in bytes of memory.

    It holds keys and values of the unfinished window and summaries of all finished windows. Two
    copies exist at a time: each pass makes its rows from those of the pass before.
    """
    context = ContextRows.of(
        np.array([num_bytes]), window_size=config.window_size, chunk_size=config.chunk_size
    )
    # A window that is almost finished has the most rows.
    num_rows = context.num_rows + config.window_size + config.window_size // config.chunk_size
    values = 2 * num_rows * config.hidden_size * config.num_hidden_layers
    return 2 * values * bytes_per_value
