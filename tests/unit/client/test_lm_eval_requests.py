"""lm-eval's requests in jobs: each answer finds its place, and no context is read twice."""

import pytest

from evascore.lm_eval.requests import JOB_BYTES, Family, Item, families, items_of, jobs, split_pair


@pytest.mark.parametrize(
    ("pair", "split"),
    [
        (("a", " b"), (b"a", b" b")),
        (("a  ", "b"), (b"a", b"  b")),
        ((" ", "b"), (b"", b" b")),
        (("", "é"), (b"", "é".encode())),
    ],
)
def test_spaces_at_the_end_of_a_context_are_scored(pair, split):
    assert split_pair(*pair) == split


def test_equal_contexts_are_read_once():
    pairs = [(b"c", b"1"), (b"d", b"2"), (b"c", b"3"), (b"e", b""), (b"", b"4")]
    assert families(pairs, 100) == [
        Family(b"c", [b"1", b"3"], [0, 2]),
        Family(b"d", [b"2"], [1]),
        Family(b"", [b"4"], [4]),
    ]


def test_context_is_cut_from_the_left_to_what_the_model_reads():
    pairs = [(b"abcdef", b"xy"), (b"abcdef", b"x" * 9), (b"", b"xy")]
    assert [family.context for family in families(pairs, 5)] == [b"def", b""]


def test_family_beyond_the_limit_is_cut():
    family = Family(b"c", [b"1", b"2", b"3"], [7, 8, 9])
    first, second = items_of(family, 2)
    assert first == Item({"context": "c", "continuations": ["1", "2"]}, 3, [7, 8])
    assert (second.fields["continuations"], second.places) == (["3"], [9])


def test_family_of_large_continuations_is_cut():
    family = Family(b"c" * 9, [b"1", b"2" * (JOB_BYTES - 1), b"3", b"4" * JOB_BYTES], [4, 5, 6, 7])
    items = list(items_of(family, 9))
    assert [item.places for item in items] == [[4, 5], [6], [7]]
    assert [item.num_bytes for item in items] == [JOB_BYTES + 9, 10, JOB_BYTES + 9]


@pytest.mark.parametrize(
    ("sizes", "max_items", "expected"),
    [
        ([], 3, []),
        ([1] * 7, 3, [3, 3, 1]),
        ([JOB_BYTES - 1, 1, 1], 3, [2, 1]),
        ([JOB_BYTES + 1, 1], 3, [1, 1]),
    ],
    ids=str,
)
def test_jobs_are_bounded(sizes, max_items, expected):
    items = [Item({}, size, [place]) for place, size in enumerate(sizes)]
    cut = list(jobs(items, max_items))
    assert [len(job) for job in cut] == expected
    assert [item for job in cut for item in job] == items
