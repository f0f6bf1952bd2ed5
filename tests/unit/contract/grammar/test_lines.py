"""A stream is cut into lines, whatever pieces it comes in."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import BodyTooLarge, MalformedBody
from contract.grammar.lines import Line, parse_line, read_lines, whole_lines


def lines_of(*pieces: bytes, max_line_bytes: int = 100, max_lines: int = 100) -> list[Line]:
    return list(read_lines(pieces, max_line_bytes=max_line_bytes, max_lines=max_lines))


@given(st.lists(st.sampled_from([b"{}", b" ", b"\n", b"\r\n", b"\xef\xbb\xbf", b"\f"]), max_size=9))
def test_pieces_make_no_difference(pieces):
    assert lines_of(*pieces) == lines_of(b"".join(pieces))


def test_only_the_whitespace_of_json_is_taken_away():
    assert lines_of(b" {}\t\r\n{}\x0c\n \n{}") == [
        Line(1, b"{}"),
        Line(2, b"{}\x0c"),
        Line(4, b"{}"),
    ]


def test_mark_at_the_beginning_of_a_file_is_no_line():
    assert lines_of(b"\xef\xbb\xbf\n{}") == [Line(2, b"{}")]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_stream_in_utf_16_is_refused_by_its_name(codec, size):
    upload = '{"text": "one"}\n'.encode(codec)
    with pytest.raises(MalformedBody, match="UTF-16"):
        lines_of(*(upload[at : at + size] for at in range(0, len(upload), size)))


@pytest.mark.parametrize("codec", ["utf-32", "utf-32-le", "utf-32-be"])
def test_stream_in_utf_32_is_refused_by_its_name(codec):
    with pytest.raises(MalformedBody, match="UTF-32"):
        lines_of('{"text": "one"}\n'.encode(codec))


@pytest.mark.parametrize(
    ("beginning", "name"), [(b"\x1f\x8b\x08\0", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd")]
)
def test_compressed_stream_is_refused_with_the_header_to_send(beginning, name):
    with pytest.raises(MalformedBody, match=f"Content-Encoding: {name}"):
        lines_of(beginning + b"rest")


def test_longer_line_is_refused_by_its_number_alone():
    _, line, _ = lines_of(b"a\n", b"b" * 60, b"b" * 60 + b"\nc")
    assert line == Line(2, None)
    with pytest.raises(BodyTooLarge, match="over 100 bytes"):
        parse_line(line, 100)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_our_own_lines_are_whole_and_keep_what_is_in_them(size):
    text = b" a\n\nb\x0c\nc"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert list(whole_lines(pieces)) == [b" a", b"", b"b\x0c", b"c"]
    assert list(whole_lines([*pieces, b"\n"])) == [b" a", b"", b"b\x0c", b"c"]


def test_line_is_held_by_its_reader_alone():
    """It may have megabytes, and its reader may wait with it."""
    pieces = [b"x" * 500, b"y" * 500 + b"\n"] * 2
    ours = whole_lines(pieces)
    whole = next(ours)
    assert sys.getrefcount(whole) == 2
    lines = read_lines(pieces, max_line_bytes=1000, max_lines=2)
    line = next(lines)
    assert sys.getrefcount(line) == 2
    assert [line, *lines] == [Line(1, whole), Line(2, whole)]
