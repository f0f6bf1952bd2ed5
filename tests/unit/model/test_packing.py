from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.packing import lay_out


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
