"""Reads, decompresses and splits a request body piece by piece, so that it is never held whole."""

import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import gevent
import zstandard
from flask import Request
from gunicorn.http.errors import ParseException

from app.requests.body import CUT_SHORT, PIECE_BYTES
from contract.errors import BodyTooLarge, MalformedBody, UnsupportedMediaType

# The least speed of an upload, averaged over the reserve. Even a slow mobile line reaches it.
MIN_BYTES_PER_S = 64_000
# An upload may stall for this long, or less if `web_timeout_s` says so; what it sends faster than
# the least speed fills the reserve again.
RESERVE_S = 30.0
# Four bytes of zstd can expand to a block of 128 KiB, so this many expand to at most 8 MiB.
_ZSTD_STEP_BYTES = 256
# RFC 9659 allows this in HTTP, and every level up to 19 stays within it.
_ZSTD_WINDOW_BYTES = 8 * 1024**2
_GZIP_WBITS = zlib.MAX_WBITS | 16
# With zstd at level 19 numbered copies of a short text reach 144, and questions after the same 3 kB
# of instructions 369. gzip at level 1, which our client uses, reaches 229 at most.
MAX_RATIO = 400
# An upload of this size may be compressed to anything.
ANY_RATIO_BYTES = 1024**2


_Decode = Callable[[Iterable[bytes]], Iterator[bytes]]


class Pace:
    """Refuses an upload that is slower than `MIN_BYTES_PER_S`; only waits for the client count."""

    def __init__(self, reserve_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with a full reserve."""
        self._full_s = self._left_s = reserve_s
        self._clock = clock

    def read(self, read: Callable[[], bytes]) -> bytes:
        """What `read` gives, with the time that it took off the reserve.

        Raises:
            MalformedBody: the reserve is used up.
        """
        began_at = self._clock()
        with gevent.Timeout(self._left_s, _too_slow()):
            piece = read()
        gained_s = len(piece) / MIN_BYTES_PER_S - (self._clock() - began_at)
        self._left_s = min(self._left_s + gained_s, self._full_s)
        if self._left_s <= 0:
            raise _too_slow()
        return piece


def _too_slow() -> MalformedBody:
    return MalformedBody(
        f"The upload came at less than {MIN_BYTES_PER_S} bytes per second; send it faster, or "
        "compressed."
    )


def read_pieces(request: Request, reserve_s: float = RESERVE_S) -> Iterator[bytes]:
    """Yield the body as it arrives, in pieces of up to 64 KiB.

    Args:
        reserve_s: the longest time that the client may stall.

    Raises:
        MalformedBody: the client left or is too slow, or the body has not the announced length.
    """
    read = partial(request.environ["wsgi.input"].read, PIECE_BYTES)
    pace = Pace(min(reserve_s, RESERVE_S))
    num_bytes = 0
    try:
        while piece := pace.read(read):
            num_bytes += len(piece)
            yield piece
    except (OSError, ParseException):
        raise MalformedBody(CUT_SHORT) from None
    if num_bytes < (request.content_length or 0):
        raise MalformedBody(CUT_SHORT)


def decoder(content_encoding: str) -> _Decode:
    """Return the function that decompresses this `Content-Encoding`, in pieces of up to 8 MiB.

    It refuses a body, with BodyTooLarge, that is over 1 MiB and over 400 times what has arrived.

    Raises:
        UnsupportedMediaType
    """
    decode = _DECODERS.get(content_encoding.strip().lower())
    if decode is None:
        raise UnsupportedMediaType(
            "The Content-Encoding is not supported; send gzip, zstd or none."
        )
    return partial(_of_bounded_ratio, decode)


def limited(pieces: Iterable[bytes], limit_bytes: int) -> Iterator[bytes]:
    """Yield the pieces; refuse the body once they have more than `limit_bytes` together.

    Raises:
        BodyTooLarge
    """
    num_bytes = 0
    for piece in pieces:
        num_bytes += len(piece)
        if num_bytes > limit_bytes:
            raise BodyTooLarge(
                f"The upload is over {limit_bytes} bytes; send its lines in several uploads.",
                limit_bytes=limit_bytes,
            )
        yield piece


def small(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Cut decompressed pieces to at most 64 KiB, so that each takes little time."""
    for piece in pieces:
        for at in range(0, len(piece), PIECE_BYTES):
            yield piece[at : at + PIECE_BYTES]


def _of_bounded_ratio(decode: _Decode, pieces: Iterable[bytes]) -> Iterator[bytes]:
    num_received = num_bytes = 0

    def received() -> Iterator[bytes]:
        nonlocal num_received
        for piece in pieces:
            num_received += len(piece)
            yield piece

    for piece in decode(received()):
        num_bytes += len(piece)
        if num_bytes > max(ANY_RATIO_BYTES, MAX_RATIO * num_received):
            raise BodyTooLarge(
                f"The upload decompresses to more than {MAX_RATIO} times its size; send it with "
                "less compression, or uncompressed.",
                limit_ratio=MAX_RATIO,
            )
        yield piece


def _as_it_is(pieces: Iterable[bytes]) -> Iterator[bytes]:
    yield from pieces


def _gunzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress gzip with one or several members, such as `cat a.gz b.gz` makes, and padding."""
    member = zlib.decompressobj(_GZIP_WBITS)
    has_begun = False
    for piece in pieces:
        while piece:
            if member.eof:
                # gzip itself ignores zeros behind a member: tapes and disk images pad with them.
                piece = piece.lstrip(b"\0")
                if not piece:
                    break
                member = zlib.decompressobj(_GZIP_WBITS)
            has_begun = True
            try:
                yield member.decompress(piece, PIECE_BYTES)
            except zlib.error:
                raise MalformedBody(
                    "The body is not valid gzip; compress it again, or leave out Content-Encoding."
                ) from None
            piece = member.unused_data if member.eof else member.unconsumed_tail
    if has_begun and not member.eof:
        raise MalformedBody(
            "The gzip body is incomplete; compress the file again, and send all of it."
        )


def _unzstd(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress zstd with one or several frames; small steps bound what one call returns."""
    context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    frame, has_begun = context.decompressobj(), False
    for piece in pieces:
        for at in range(0, len(piece), _ZSTD_STEP_BYTES):
            step = piece[at : at + _ZSTD_STEP_BYTES]
            while step:
                if frame.eof:
                    frame = context.decompressobj()
                has_begun = True
                try:
                    yield frame.decompress(step)
                except zstandard.ZstdError:
                    raise MalformedBody(
                        "The body is not valid zstd, or its window is over 8 MiB; "
                        "compress it at level 19 or lower, without --long."
                    ) from None
                step = frame.unused_data if frame.eof else b""
    if has_begun and not frame.eof:
        raise MalformedBody(
            "The zstd body is incomplete; compress the file again, and send all of it."
        )


_DECODERS: dict[str, _Decode] = {
    "": _as_it_is,
    "identity": _as_it_is,
    "gzip": _gunzipped,
    "x-gzip": _gunzipped,
    "zstd": _unzstd,
}
