from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from model.scoring.sliding_window import SlidingWindow


@given(st.integers(1, 500), st.integers(1, 50), st.integers(1, 50))
def test_windows_hold_each_byte_once_after_the_most_context(num_bytes, size, stride):
    window = SlidingWindow(max(size, stride), min(size, stride))

    cut = window.cut(num_bytes)

    assert (cut[0].start, cut[-1].end) == (0, num_bytes)
    for before, after in pairwise(cut):
        assert before.end == after.start < after.end
        # What the window before did not reach is scored in the next one that starts.
        assert before.end == before.context_from + window.size_bytes
        assert after.context_from == before.context_from + window.stride_bytes
    assert all(each.end - each.context_from <= window.size_bytes for each in cut)
