"""The stream of lines: whatever the pieces, the same lines; bounded whatever the client sends."""

import gzip
import time
import tracemalloc
import zlib

import gevent
import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from app.requests.upload_stream import (
    ANY_RATIO_BYTES,
    MAX_RATIO,
    MIN_BYTES_PER_S,
    PIECE_BYTES,
    Pace,
    decoder,
    limited,
)
from contract.errors import BodyTooLarge, MalformedBody, UnsupportedMediaType
from contract.grammar.json_text import BYTE_ORDER_MARK
from contract.grammar.lines import read_lines

UPLOAD = 'first\n\n  \nnaïve 😀 line\r\n{"a": 1}\nlast without newline'.encode()
LINES = [
    (1, b"first"),
    (4, "naïve 😀 line".encode()),
    (5, b'{"a": 1}'),
    (6, b"last without newline"),
]


def lines_of(pieces, *, max_line_bytes=1000, max_lines=1000):
    read = read_lines(pieces, max_line_bytes=max_line_bytes, max_lines=max_lines)
    return [(line.number, line.content) for line in read]


def in_pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def decoded(encoding: str, body: bytes, size: int = PIECE_BYTES) -> bytes:
    return b"".join(decoder(encoding)(in_pieces(body, size)))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_do_not_depend_on_where_the_body_is_cut(size):
    assert lines_of(in_pieces(UPLOAD, size)) == LINES


@given(st.binary(max_size=60), st.integers(1, 9))
def test_lines_are_those_of_the_whole_body(body, size):
    assume(not body.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")))
    assume(b"\0" not in body[:4])
    assume(not body.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")))
    whole = [(n, line.strip(b" \t\r")) for n, line in enumerate(body.split(b"\n"), 1)]
    lines = [line for line in whole if line[1] and line != (1, BYTE_ORDER_MARK)]
    assert lines_of(in_pieces(body, size)) == lines


@pytest.mark.parametrize("body", [b"", b"\n", b" \n\t\n"], ids=["nothing", "newline", "blanks"])
def test_blank_upload_has_no_lines(body):
    assert lines_of([body]) == []


@pytest.mark.parametrize("padding", [0, 1, 511, 70_000])
@pytest.mark.parametrize("size", [1, 100, PIECE_BYTES])
def test_zeros_behind_a_member_of_gzip_are_ignored(padding, size):
    member, zeros = gzip.compress(b"one\n", mtime=0), b"\0" * padding
    assert decoded("gzip", member + zeros, size) == b"one\n"
    assert decoded("gzip", member + zeros + member + zeros, size) == b"one\none\n"


def test_gzip_that_ends_within_a_member_is_refused():
    with pytest.raises(MalformedBody, match="incomplete"):
        decoded("gzip", gzip.compress(b"one") + b"\0" + gzip.compress(b"two")[:-1])


@pytest.mark.parametrize("size", [1, 4, 100])
def test_line_over_the_limit_is_reported_by_its_number_alone(size):
    body = b"12345\n123456\n1234567890\n12345"
    found = lines_of(in_pieces(body, size), max_line_bytes=5)
    assert found == [(1, b"12345"), (2, None), (3, None), (4, b"12345")]


@pytest.mark.parametrize("piece", [b"", b"x"], ids=["nothing", "one byte"])
def test_line_of_many_pieces_takes_time_in_proportion(piece):
    began = time.process_time()
    (line,) = lines_of([b"a", *[piece] * 300_000, b"z"], max_line_bytes=1_000_000)
    assert line == (1, b"a" + piece * 300_000 + b"z")
    # In place of more than a minute.
    assert time.process_time() - began < 5


def test_endless_line_is_not_kept():
    tracemalloc.start()
    try:
        assert lines_of((b"x" * PIECE_BYTES for _ in range(500)), max_line_bytes=10_000) == [
            (1, None)
        ]
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_as_many_lines_as_the_limit_pass(end):
    assert len(lines_of([b"a\nb\nc" + end], max_lines=3)) == 3


@pytest.mark.parametrize("body", [b"a\nb\nc\nd", b"a\nb\nc\nd\n", b"\n\n\n\n\na"])
@pytest.mark.parametrize("size", [1, 100])
def test_more_lines_than_the_limit_are_refused(body, size):
    with pytest.raises(BodyTooLarge):
        lines_of(in_pieces(body, size), max_lines=3)


def test_bytes_over_the_limit_are_refused():
    assert b"".join(limited([b"abc", b"de"], 5)) == b"abcde"
    with pytest.raises(BodyTooLarge):
        list(limited([b"abc", b"def"], 5))


COMPRESSED = {
    "identity": UPLOAD,
    "gzip": gzip.compress(UPLOAD),
    "GZIP": gzip.compress(UPLOAD[:10]) + gzip.compress(UPLOAD[10:]),
    "zstd": zstandard.compress(UPLOAD),
    " zstd ": zstandard.compress(UPLOAD[:10]) + zstandard.compress(UPLOAD[10:]),
}


@pytest.mark.parametrize("size", [1, 5, PIECE_BYTES])
@pytest.mark.parametrize("encoding", COMPRESSED)
def test_compressed_upload_is_read_whole(encoding, size):
    assert decoded(encoding, COMPRESSED[encoding], size) == UPLOAD


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("missing", [1, 5, 20])
def test_compressed_upload_that_was_cut_short_is_refused(encoding, missing):
    with pytest.raises(MalformedBody, match=f"The {encoding} body is incomplete"):
        decoded(encoding, COMPRESSED[encoding][:-missing])


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("body", [b"plain text", b"\x1f\x8b\x08 broken"], ids=["plain", "header"])
def test_upload_that_is_not_what_its_encoding_says_is_refused(encoding, body):
    with pytest.raises(MalformedBody):
        decoded(encoding, body)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_garbage_behind_a_compressed_upload_is_refused(encoding):
    with pytest.raises(MalformedBody):
        decoded(encoding, COMPRESSED[encoding] + b"garbage")


def test_checksum_of_gzip_is_checked():
    body = bytearray(COMPRESSED["gzip"])
    body[-8] ^= 1
    with pytest.raises(MalformedBody):
        decoded("gzip", bytes(body))


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "x"])
def test_other_encodings_are_refused(encoding):
    with pytest.raises(UnsupportedMediaType):
        decoder(encoding)


def test_zstd_window_beyond_that_of_http_is_refused():
    parameters = zstandard.ZstdCompressionParameters(window_log=24, compression_level=1)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = compressor.compress(b"x" * 100) + compressor.flush()
    with pytest.raises(MalformedBody, match="8 MiB"):
        decoded("zstd", body)


BOMB_BYTES = 60_000_000


def gzip_bomb() -> bytes:
    compressor = zlib.compressobj(6, wbits=31)
    zeros = b"0" * 1_000_000
    return b"".join(compressor.compress(zeros) for _ in range(BOMB_BYTES // len(zeros))) + (
        compressor.flush()
    )


def zstd_bomb() -> bytes:
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    zeros = b"0" * 1_000_000
    return b"".join(compressor.compress(zeros) for _ in range(BOMB_BYTES // len(zeros))) + (
        compressor.flush()
    )


BOMBS = [("gzip", gzip_bomb), ("zstd", zstd_bomb)]


@pytest.mark.parametrize(("encoding", "bomb"), BOMBS)
def test_bomb_is_refused_early_in_bounded_memory(encoding, bomb):
    body = bomb()
    assert len(body) < BOMB_BYTES / 500
    given: list[int] = []
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge, match="400 times its size; send it with less"):
            given.extend(map(len, decoder(encoding)(in_pieces(body, PIECE_BYTES))))
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()
    # What has arrived so far counts, not the whole body.
    assert sum(given) <= 400 * min(len(body), PIECE_BYTES)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_small_upload_may_be_compressed_to_anything(compress):
    encoding = "gzip" if compress is gzip.compress else "zstd"
    body = b"x" * ANY_RATIO_BYTES
    assert decoded(encoding, compress(body)) == body
    with pytest.raises(BodyTooLarge):
        decoded(encoding, compress(body * 2))


def test_what_repeats_itself_within_reason_is_read_whole():
    prompt = " ".join(str(number) for number in range(700))
    body = b"".join(b'{"text": "%s %d"}\n' % (prompt.encode(), n % 9) for n in range(3_000))
    compressed = zstandard.compress(body, 19)
    # Many copies of one prompt are honest, and so is the level 1 of our client.
    assert 100 < len(body) / len(gzip.compress(body, 1)) < MAX_RATIO < len(body) / len(compressed)
    assert decoded("gzip", gzip.compress(body, 1)) == body


def test_zeros_at_the_level_of_our_client_are_read_whole():
    body = b"0" * 20_000_000
    assert decoded("gzip", gzip.compress(body, 1)) == body


def test_bytes_over_the_limit_are_refused_while_they_are_decompressed():
    body = zstandard.compress(b"".join(b"%d\n" % number for number in range(1_000_000)))
    with pytest.raises(BodyTooLarge, match="over 1000000 bytes"):
        list(limited(decoder("zstd")(in_pieces(body, PIECE_BYTES)), 1_000_000))


class SlowClient:
    """A client whose pieces arrive after a time; its clock is the test's."""

    def __init__(self) -> None:
        self.now = 0.0

    def sends(self, num_bytes: int, after_s: float):
        def read() -> bytes:
            self.now += after_s
            return b"x" * num_bytes

        return read


def read_often(pace: Pace, read) -> None:
    for _ in range(1000):
        pace.read(read)


def test_upload_at_the_least_speed_may_take_any_time():
    client = SlowClient()
    read_often(Pace(30, lambda: client.now), client.sends(MIN_BYTES_PER_S, after_s=1.0))


@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_upload_below_the_least_speed_is_refused_when_its_reserve_is_used_up(share):
    client = SlowClient()
    pace = Pace(30, lambda: client.now)
    read = client.sends(int(MIN_BYTES_PER_S * share), after_s=1.0)
    with pytest.raises(MalformedBody, match="less than 64000 bytes per second"):
        read_often(pace, read)
    assert client.now == pytest.approx(30 / (1 - share), abs=2)


def test_fast_pieces_fill_the_reserve_again_but_no_more():
    client = SlowClient()
    pace = Pace(30, lambda: client.now)
    pace.read(client.sends(1, after_s=20))
    pace.read(client.sends(100 * MIN_BYTES_PER_S, after_s=1))
    pace.read(client.sends(1, after_s=29))
    with pytest.raises(MalformedBody):
        pace.read(client.sends(1, after_s=2))


def test_client_that_sends_nothing_is_refused_when_its_reserve_is_used_up():
    began_at = time.monotonic()
    with pytest.raises(MalformedBody):
        Pace(0.2).read(lambda: gevent.sleep(10) or b"")
    assert time.monotonic() - began_at < 5
