from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.packing import ContextRows, lay_out


def test_windows_of_one_sequence_see_the_chunks_before_them():
    layout = lay_out([35], window_size=16, chunk_size=4)

    assert layout.segment_starts.tolist() == [0, 16, 32]
    assert layout.segment_lengths.tolist() == [16, 16, 3]
    assert layout.num_summaries.tolist() == [0, 4, 8]
    assert layout.summary_starts.tolist() == [0, 0, 0]
    assert layout.chunk_starts.tolist() == [0, 4, 8, 12, 16, 20, 24, 28]


def test_second_sequence_starts_anew():
    layout = lay_out([17, 18], window_size=16, chunk_size=4)

    assert layout.positions.tolist() == [*range(17), *range(18)]
    assert layout.segment_starts.tolist() == [0, 16, 17, 33]
    assert layout.summary_starts.tolist() == [0, 0, 4, 4]
    assert layout.num_summaries.tolist() == [0, 4, 0, 4]
    assert layout.chunk_starts.tolist() == [0, 4, 8, 12, 17, 21, 25, 29]


def test_first_example_of_the_drawing_is_laid_out_as_drawn():
    layout = lay_out([10, 3], window_size=4, chunk_size=2)

    assert layout.segment_starts.tolist() == [0, 4, 8, 10]
    assert layout.chunk_starts.tolist() == [0, 2, 4, 6]
    seen = zip(layout.summary_starts, layout.num_summaries, strict=True)
    assert [layout.past_rows[start : start + count].tolist() for start, count in seen] == [
        [],
        [0, 1],
        [0, 1, 2, 3],
        [],
    ]


def test_continuations_of_the_drawing_are_laid_out_as_drawn():
    context = ContextRows.of(np.array([7]), window_size=4, chunk_size=2)
    contexts = context.by_sequence(np.array([0, 0]))
    layout = lay_out([3, 1], window_size=4, chunk_size=2, contexts=contexts)

    assert layout.positions.tolist() == [7, 8, 9, 7]
    assert layout.segment_starts.tolist() == [0, 1, 3]
    assert layout.summary_starts.tolist() == [0, 6, 0]
    assert layout.num_summaries.tolist() == [5, 4, 5]
    # s0, s1 and s2 are carried in rows 0, 1 and 5; s3 is the first summary of this pass.
    assert layout.past_rows[6:].tolist() == [0, 1, 5, 6]
    # K6 is row 4 of what is carried, D7 the first row behind it.
    assert layout.split_chunk_rows.tolist() == [4, 6]


def test_no_sequences_have_no_segments():
    layout = lay_out([], window_size=16, chunk_size=4)

    assert layout.num_tokens == len(layout.segment_starts) == len(layout.chunk_starts) == 0


@given(st.lists(st.integers(0, 70), max_size=8))
def test_segments_cover_every_token_once(lengths):
    layout = lay_out(lengths, window_size=16, chunk_size=4)

    ends = layout.segment_starts + layout.segment_lengths
    covered = [
        token
        for start, end in zip(layout.segment_starts, ends, strict=True)
        for token in range(start, end)
    ]
    assert covered == list(range(sum(lengths))) == list(range(layout.num_tokens))


@given(st.lists(st.integers(1, 70), min_size=1, max_size=8))
def test_segments_see_all_earlier_chunks_of_their_own_sequence(lengths):
    layout = lay_out(lengths, window_size=16, chunk_size=4)

    offsets = [0, *np.cumsum(lengths).tolist()]
    segment = 0
    for start, end in pairwise(offsets):
        for window_start in range(start, end, 16):
            first = layout.summary_starts[segment]
            seen = layout.chunk_starts[first : first + layout.num_summaries[segment]]
            assert seen.tolist() == list(range(start, window_start, 4))
            segment += 1
