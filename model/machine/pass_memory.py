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


@dataclass(frozen=True, slots=True)
class Carried:
    """The memory of the KV cache that a pass leaves for later passes."""

    longest_text_bytes: int
    """Of the longest text, which is read in several passes; both copies that exist at a time."""
    per_byte: float
    """Of contexts that one pass reads together, per byte of text."""


def pass_bytes_that_fit(
    small: Peak, large: Peak, *, free_bytes: int, carried: Carried, wanted_bytes: int
) -> int:
    """Return how many bytes a pass may read: `wanted_bytes`, or less where memory is short.

    A pass takes a fixed amount and an amount per byte: two passes of different size tell both.
    What passes carry stays in memory besides. A pass reads `MIN_PASS_BYTES` at least.
    """
    assert small.num_bytes < large.num_bytes
    grown = large.memory_bytes - small.memory_bytes
    per_byte = max(grown / (large.num_bytes - small.num_bytes), 1.0)
    fixed = max(small.memory_bytes - per_byte * small.num_bytes, 0.0)
    usable = USABLE_SHARE * free_bytes - fixed
    num_fitting = min(
        (usable - carried.longest_text_bytes) / per_byte, usable / (per_byte + carried.per_byte)
    )
    whole_steps = int(num_fitting) // MIN_PASS_BYTES * MIN_PASS_BYTES
    return max(min(wanted_bytes, whole_steps), min(wanted_bytes, MIN_PASS_BYTES))


def carried_of(config: EvaByteConfig, max_text_bytes: int, *, bytes_per_value: int) -> Carried:
    """Return what texts of up to `max_text_bytes` carry.

    A context has keys and values of its unfinished window, and summaries of all complete chunks.
    Of a text that is read alone two copies exist at a time: each pass makes its rows from those of
    the pass before.
    """
    window_size, chunk_size = config.window_size, config.chunk_size
    num_tokens = max_text_bytes + 1
    # A window that is almost finished has the most rows.
    almost = max((num_tokens + 1) // window_size * window_size - 1, 0)
    num_rows = max(
        ContextRows.of(np.array([each]), window_size=window_size, chunk_size=chunk_size).num_rows
        for each in (num_tokens, almost)
    )
    row_bytes = 2 * config.hidden_size * config.num_hidden_layers * bytes_per_value
    return Carried(2 * num_rows * row_bytes, (1 + 1 / chunk_size) * row_bytes)
