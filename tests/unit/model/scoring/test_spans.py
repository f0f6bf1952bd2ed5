"""Spans cut a text of any bytes without a gap, and their scores add up."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.grammar.outputs import UNITS
from model import ScoreRequest
from model.scoring.spans import CharacterRanges, bounds_of

TOLERANCE_NATS = 1e-9


def pieces(unit: str, text: bytes) -> list[bytes]:
    return [text[start:end] for start, end in bounds_of(unit, text).tolist()]


CUT = {
    "words": ("words", b"The cat, sat.", [b"The", b" cat,", b" sat."]),
    "words-around": ("words", b"  a \n b\t", [b"  a", b" \n b", b"\t"]),
    "words-no-space": ("words", "日本語".encode(), ["日本語".encode()]),
    "words-wide-space": ("words", "a\u3000b".encode(), [b"a", "\u3000b".encode()]),
    "words-only-space": ("words", b" \n ", [b" \n "]),
    "words-broken": ("words", b"a\xff \xfeb", [b"a\xff", b" \xfeb"]),
    "lines": ("lines", b"a\r\n\nb", [b"a\r\n", b"\n", b"b"]),
    "lines-last-newline": ("lines", b"a\nb\n", [b"a\n", b"b\n"]),
    "lines-unicode-separator": ("lines", "a\u2028b".encode(), ["a\u2028b".encode()]),
    "characters": ("characters", "aé€😀".encode(), [c.encode() for c in "aé€😀"]),
    "characters-broken": ("characters", b"\xe2\x82a\xff", [b"\xe2", b"\x82", b"a", b"\xff"]),
    "characters-surrogate": ("characters", b"\xed\xb2\x80", [b"\xed", b"\xb2", b"\x80"]),
    "characters-combined": ("characters", "e\u0301".encode(), [b"e", "\u0301".encode()]),
    "nothing": ("words", b"", []),
}


@pytest.mark.parametrize(("unit", "text", "expected"), CUT.values(), ids=CUT)
def test_text_is_cut_into_its_units(unit, text, expected):
    assert pieces(unit, text) == expected


@given(st.sampled_from(UNITS), st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_units_leave_no_byte_out_and_none_is_empty(unit, text):
    bounds = bounds_of(unit, text).tolist()

    assert b"".join(text[start:end] for start, end in bounds) == text
    assert all(start < end for start, end in bounds)
    assert all(before[1] == after[0] for before, after in pairwise(bounds))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("text", ["Zwölf Boxkämpfer\njagen 😀\n".encode(), b"\xff\xfe a"], ids=len)
def test_scores_of_the_units_add_up_to_that_of_the_text(scorer, unit, text):
    [result] = scorer.score([ScoreRequest(text=text, spans=unit)])

    total = sum(span["log_likelihood_nats"] for span in result["spans"])
    assert total == pytest.approx(result["log_likelihood_nats"], abs=TOLERANCE_NATS)
    assert sum(span["num_bytes"] for span in result["spans"]) == len(text)


def test_range_has_the_score_of_its_bytes(scorer):
    ranges = ((0, 9), (2, 5), (8, 9), (2, 5))
    request = ScoreRequest(text=b"some text", spans=ranges, outputs=frozenset({"bytes"}))

    [result] = scorer.score([request])

    log_probs = result["bytes"]["log_prob_nats"]
    assert [(span["start"], span["end"]) for span in result["spans"]] == list(ranges)
    for (start, end), span in zip(ranges, result["spans"], strict=True):
        expected = sum(log_probs[start:end])
        assert span["log_likelihood_nats"] == pytest.approx(expected, abs=TOLERANCE_NATS)
        bits = -expected / (end - start) / 0.6931471805599453
        assert span["bits_per_byte"] == pytest.approx(bits)


def test_range_is_cut_as_a_slice_of_its_text_and_may_be_empty(scorer):
    ranges = ((2, 2), (3, 1), (1, 9), (2**60, 2**70))
    short, empty = ScoreRequest(text=b"abc", spans=ranges), ScoreRequest(next_chars=1, spans=ranges)

    of_short, of_empty = scorer.score([short, empty])

    found = [(span["start"], span["end"]) for span in of_short["spans"]]
    assert found == [(2, 2), (3, 3), (1, 3), (3, 3)]
    assert [span["bits_per_byte"] is None for span in of_short["spans"]] == [1, 1, 0, 1]
    assert of_short["spans"][0] == of_empty["spans"][0] | {"start": 2, "end": 2}
    assert {(span["start"], span["end"]) for span in of_empty["spans"]} == {(0, 0)}


def test_spans_of_continuations_count_from_their_own_beginning(scorer):
    request = ScoreRequest(context=b"one two", continuations=(b" three", b" f"), spans="words")

    [result] = scorer.score([request])

    found = [[(s["start"], s["end"]) for s in each["spans"]] for each in result["continuations"]]
    assert found == [[(0, 6)], [(0, 2)]]


def test_ranges_are_cut_from_each_continuation(scorer):
    request = ScoreRequest.from_json({"continuations": ["a", "bcd"], "spans": [[1, 3]]})

    [result] = scorer.score([request])

    assert [each["spans"][0]["num_bytes"] for each in result["continuations"]] == [0, 2]


@given(
    st.text(max_size=30),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=5),
)
def test_ranges_of_characters_are_slices_of_the_string(text, ranges):
    found = bounds_of(CharacterRanges(tuple(ranges)), text.encode(errors="replace")).tolist()
    text = text.encode(errors="replace").decode()

    for (start, end), (first, last) in zip(ranges, found, strict=True):
        assert text.encode()[first:last] == text[start:end].encode()


def test_range_of_characters_behind_an_emoji_scores_the_word(scorer):
    text = "so \U0001f680 rocket"
    ranges = {"spans": {"unit": "characters", "ranges": [[5, 11]]}}
    asked = [ranges, {"spans": [[8, 14]]}]
    requests = [ScoreRequest.from_json({"text": text, **each}) for each in asked]
    of_characters, of_bytes = (result["spans"] for result in scorer.score(requests))

    assert of_characters == of_bytes
    assert text.encode()[of_bytes[0]["start"] : of_bytes[0]["end"]] == b"rocket"
