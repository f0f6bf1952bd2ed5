"""Compresses answers while they are sent, in an encoding that the client accepts."""

import zlib
from collections.abc import Iterable, Iterator

import zstandard
from flask import Request, Response

# The fastest levels, because each answer is made once and read once.
_GZIP_LEVEL, _ZSTD_LEVEL = 1, 1
_GZIP_WBITS = zlib.MAX_WBITS | 16


def choose(request: Request) -> str:
    """The encoding of an answer to `request`; '' for none."""
    accepted = request.accept_encodings
    return str(accepted.best_match(("zstd", "gzip", "identity"), default="")).replace(
        "identity", ""
    )


def note_encoding(response: Response, encoding: str) -> None:
    """Name the encoding of an answer in its header."""
    response.headers["Vary"] = "Accept-Encoding"
    if encoding:
        response.headers["Content-Encoding"] = encoding


def encoded(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The pieces compressed in `encoding`, which `choose` gave."""
    if encoding == "":
        yield from pieces
        return
    compressor = (
        zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
        if encoding == "zstd"
        else zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WBITS)
    )
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()
