"""Lays out token sequences end to end in one pass, and cuts them into windows and chunks.

There is no padding. Here are texts A (10 tokens) and B (3) where a window has 4 tokens and a chunk
has 2. Text A is longer than a window, so its later windows read summaries of its earlier chunks:

    token       0   1   2   3   4   5   6   7   8   9  10  11  12
    text       A0  A1  A2  A3  A4  A5  A6  A7  A8  A9  B0  B1  B2
    window    [-- window 0 --][-- window 1 --][- w 2 -][- w 0 ---]
    segment   [      0       ][      1       ][   2   ][    3    ]
    chunk      [ s0 ]  [ s1 ]  [ s2 ]  [ s3 ]   nobody reads more

    segment     its queries see these rows of the past       and up to themselves
       0        nothing                                      A0 A1 A2 A3
       1        s0 s1                                        A4 A5 A6 A7
       2        s0 s1 s2 s3                                  A8 A9
       3        nothing                                      B0 B1 B2

A pass can keep its rows (the KV cache), and later passes continue them. A context K of 7 tokens
carries 6 rows: summaries of its finished windows, tokens of its unfinished window, and summaries
of that window's complete chunks. Texts D (3 tokens) and E (1) continue it and share these rows:

    token       0   1   2   3
    text       D7  D8  D9  E7
    window    [w1][- w 2 -][w1]
    segment   [ 0][   1   ][ 2]

    past row    0   1   2   3   4   5 | 6   7   8   9
                s0  s1  K4  K5  K6  s2| s0  s1  s2  s3
                carried by K          | read by D in window 2

    segment     its queries see these rows of the past       and up to themselves
       0        0-4: s0 s1 K4 K5 K6                          D7
       1        6-9: s0 s1 s2 s3                             D8 D9
       2        0-4: s0 s1 K4 K5 K6                          E7

Chunk s3 is split: token K6 of the context begins it and D7 of this pass ends it.

`T` is the number of tokens of all sequences. This module knows lengths only: no tokens, no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

# Products have a multiple of so many rows: with fewer rows, or an odd number, a product may give a
# row other bits (docs/numerics.md).
ROW_STEP = 16
_NONE: IntArray = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """The windows and chunks of the sequences of one pass, as the drawing above shows.

    A segment holds the tokens that one sequence has of one window in this pass. Its queries are
    `segment_lengths` tokens from `segment_starts` on. Its keys are `num_summaries` rows of the past
    from `summary_starts` on, then its own tokens: each query sees those up to itself.

    The past holds the rows that contexts carry, then one summary for each chunk that a later window
    reads. Summary `c` of this pass stands for `chunk_size` tokens from `chunk_starts[c]` on. The
    tokens of split chunks are copied behind the tokens of the pass.
    """

    chunk_size: int
    positions: IntArray  # [T], position in the sequence; the context comes before
    segment_starts: IntArray  # [segments]
    segment_lengths: IntArray  # [segments], 1..window_size
    summary_starts: IntArray  # [segments]
    num_summaries: IntArray  # [segments]
    chunk_starts: IntArray  # [C], indices into [tokens ; split chunks]
    split_chunk_rows: IntArray  # [split chunks * chunk_size], indices into [carried ; tokens]
    past_rows: IntArray  # [past], indices into [carried ; summaries of this pass]
    kept_rows: IntArray  # [kept], indices into [past ; tokens]: the rows for later passes

    @property
    def num_tokens(self) -> int:
        """The number of tokens of all sequences together."""
        return len(self.positions)

    @property
    def num_past(self) -> int:
        """The number of rows of the past."""
        return len(self.past_rows)


@dataclass(frozen=True, slots=True)
class ContextRows:
    """The rows that contexts carry, end to end; each array has one number per context.

    A context carries, in this order: summaries of its finished windows, tokens of its unfinished
    window, and summaries of the complete chunks of that window. Queries see the last ones only
    after the window is finished.
    """

    num_tokens: IntArray  # tokens read so far
    starts: IntArray  # first row
    num_summaries: IntArray  # summaries of finished windows
    num_window_tokens: IntArray  # tokens of the unfinished window
    num_rows: int  # rows of all contexts

    @classmethod
    def of(cls, num_tokens: IntArray, *, window_size: int, chunk_size: int) -> "ContextRows":
        """Lay out contexts of `num_tokens` tokens."""
        summaries = num_tokens // window_size * (window_size // chunk_size)
        in_window = num_tokens % window_size
        num_rows = summaries + in_window + in_window // chunk_size
        return cls(num_tokens, _starts(num_rows), summaries, in_window, int(num_rows.sum()))

    def by_sequence(self, context_of: IntArray) -> "ContextRows":
        """Repeat the numbers of each context for each sequence that continues it."""
        return ContextRows(
            self.num_tokens[context_of],
            self.starts[context_of],
            self.num_summaries[context_of],
            self.num_window_tokens[context_of],
            self.num_rows,
        )


def lay_out(
    lengths: Sequence[int] | IntArray,
    *,
    window_size: int,
    chunk_size: int,
    contexts: ContextRows | None = None,
    is_kept: bool = False,
) -> PackedLayout:
    """Cut sequences of `lengths` tokens; `chunk_size` divides `window_size`.

    Args:
        contexts: the context of each sequence; None where all sequences begin at position 0.
        is_kept: later passes continue these sequences. Each must begin at the start of a window.
    """
    tokens = np.asarray(lengths, dtype=np.int64)
    if contexts is None:
        nothing = np.zeros_like(tokens)
        contexts = ContextRows.of(nothing, window_size=window_size, chunk_size=chunk_size)
    assert not (is_kept and contexts.num_window_tokens.any())
    cut = _Cut.of(tokens, contexts, window_size, chunk_size, is_kept=is_kept)
    segments = _segments(cut)
    chunk_starts, split_chunk_rows = _new_chunks(cut)
    return PackedLayout(
        chunk_size=chunk_size,
        positions=np.repeat(cut.starts, tokens) + _count_within(tokens),
        segment_starts=segments[0],
        segment_lengths=segments[1],
        summary_starts=segments[2],
        num_summaries=segments[3],
        chunk_starts=chunk_starts,
        split_chunk_rows=split_chunk_rows,
        past_rows=_past_rows(cut),
        kept_rows=_kept_rows(cut) if is_kept else _NONE,
    )


@dataclass(frozen=True, slots=True)
class _Cut:
    """The sequences with their windows and chunks; each array has one number per sequence."""

    window_size: int
    chunk_size: int
    context: ContextRows
    starts: IntArray  # position of the first token
    ends: IntArray
    token_starts: IntArray
    first_windows: IntArray
    num_windows: IntArray  # windows with tokens of this pass
    num_inherited: IntArray  # summaries of the context that later windows see
    num_new: IntArray  # summaries of this pass; in the past they follow the inherited ones
    summary_starts: IntArray  # past row of the first inherited or new summary

    @classmethod
    def of(
        cls,
        tokens: IntArray,
        context: ContextRows,
        window_size: int,
        chunk_size: int,
        *,
        is_kept: bool,
    ) -> "_Cut":
        starts, ends = context.num_tokens, context.num_tokens + tokens
        first_windows = starts // window_size
        num_windows = np.where(tokens > 0, -(-ends // window_size) - first_windows, 0)
        last_windows = first_windows + np.maximum(num_windows - 1, 0)
        num_earlier = starts // chunk_size
        num_chunks = ends // chunk_size if is_kept else last_windows * (window_size // chunk_size)
        is_read = (num_windows > 1) | is_kept
        num_inherited = np.where(is_read, num_earlier, 0)
        num_new = np.where(is_read, num_chunks - num_earlier, 0)
        return cls(
            window_size,
            chunk_size,
            context,
            starts,
            ends,
            token_starts=_starts(tokens),
            first_windows=first_windows,
            num_windows=num_windows,
            num_inherited=num_inherited,
            num_new=num_new,
            summary_starts=context.num_rows + _starts(num_inherited + num_new),
        )


def _segments(cut: _Cut) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Return for each segment its start, length, first row of the past and number of these rows.

    The first segment of a sequence sees the carried rows where they are, so that sequences with
    one context share them.
    """
    owner, number = _owners(cut.num_windows), _count_within(cut.num_windows)
    window = cut.first_windows[owner] + number
    first = np.maximum(window * cut.window_size, cut.starts[owner])
    end = np.minimum((window + 1) * cut.window_size, cut.ends[owner])
    sees_context = (number == 0) & (cut.starts > 0)[owner]
    carried = cut.context.num_summaries + cut.context.num_window_tokens
    return (
        cut.token_starts[owner] + first - cut.starts[owner],
        end - first,
        np.where(sees_context, cut.context.starts[owner], cut.summary_starts[owner]),
        np.where(sees_context, carried[owner], window * (cut.window_size // cut.chunk_size)),
    )


def _new_chunks(cut: _Cut) -> tuple[IntArray, IntArray]:
    """Return the first token of each new chunk, and the rows of the split chunks."""
    owner = _owners(cut.num_new)
    chunk = cut.starts[owner] // cut.chunk_size + _count_within(cut.num_new)
    offsets = (
        chunk * cut.chunk_size - cut.starts[owner]
    )  # negative where the context begins the chunk
    is_split = offsets < 0
    num_tokens = int((cut.ends - cut.starts).sum())
    chunk_starts = cut.token_starts[owner] + offsets
    chunk_starts[is_split] = num_tokens + cut.chunk_size * np.arange(is_split.sum())

    split_owner = owner[is_split, None]
    from_start = offsets[is_split, None] + np.arange(cut.chunk_size)
    context = cut.context
    context_end = context.starts + context.num_summaries + context.num_window_tokens
    rows = from_start + np.where(
        from_start < 0,
        context_end[split_owner],
        context.num_rows + cut.token_starts[split_owner],
    )
    return chunk_starts, rows.reshape(-1)


def _past_rows(cut: _Cut) -> IntArray:
    """Return the rows of the past: all carried rows, then the summaries of each sequence."""
    count = cut.num_inherited + cut.num_new
    owner, number = _owners(count), _count_within(count)
    context = cut.context
    # The summaries of the unfinished window come after its tokens.
    skipped = np.where(number < context.num_summaries[owner], 0, context.num_window_tokens[owner])
    rows = np.where(
        number < cut.num_inherited[owner],
        context.starts[owner] + number + skipped,
        context.num_rows + _starts(cut.num_new)[owner] + number - cut.num_inherited[owner],
    )
    return np.concatenate((np.arange(context.num_rows), rows))


def _kept_rows(cut: _Cut) -> IntArray:
    """Return the rows that later passes need of each sequence and its context."""
    kept = ContextRows.of(cut.ends, window_size=cut.window_size, chunk_size=cut.chunk_size)
    count = kept.num_summaries + kept.num_window_tokens + kept.num_window_tokens // cut.chunk_size
    owner, number = _owners(count), _count_within(count)
    num_past = cut.context.num_rows + int((cut.num_inherited + cut.num_new).sum())
    window_starts = cut.token_starts + cut.ends - cut.starts - kept.num_window_tokens

    in_window = number - kept.num_summaries[owner]
    is_token = (in_window >= 0) & (in_window < kept.num_window_tokens[owner])
    skipped = np.where(in_window < 0, 0, kept.num_window_tokens[owner])
    return np.where(
        is_token,
        num_past + window_starts[owner] + in_window,
        cut.summary_starts[owner] + number - skipped,
    )


def _starts(lengths: IntArray) -> IntArray:
    """Return where each of `lengths` begins when they lie end to end."""
    return np.cumsum(lengths) - lengths


def _owners(counts: IntArray) -> IntArray:
    """Return 0, 1, ..., each repeated as often as `counts` says."""
    return np.repeat(np.arange(len(counts)), counts)


def _count_within(lengths: IntArray) -> IntArray:
    """Return 0, 1, ... for each of `lengths`, end to end."""
    return np.arange(lengths.sum()) - np.repeat(_starts(lengths), lengths)
