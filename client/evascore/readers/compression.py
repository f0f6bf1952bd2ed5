"""Opens files that may be compressed, and refuses PDFs, archives and Office documents."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from evascore.readers.packages import InputRefused, package

GZIP, ZSTD, BZIP2, XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0"
PARQUET, ARROW = b"PAR1", b"ARROW1"
MAGIC_BYTES = 8
_READ_BYTES = 128 * 1024
SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
# Not text, and not read here either: what it is, and what to do.
_REFUSED = {
    b"PK\x03\x04": ("a zip archive", "unpack it first"),
    b"%PDF": ("a PDF document", "convert it to text first"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it first"),
    b"\xd0\xcf\x11\xe0": ("an Office document", "save it as text or CSV first"),
}


@contextmanager
def decompressed(source: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Open what `source` holds, whatever it is compressed with.

    gzip may have several members and zeros behind them, zstd several frames.

    Args:
        name: of the file, for messages.

    Raises:
        InputRefused: it is not text, or it is damaged, which may show only while it is read.
    """
    buffered: Any = io.BufferedReader(cast(io.RawIOBase, source))
    opened = _opened(buffered, buffered.peek(MAGIC_BYTES)[:MAGIC_BYTES], name)
    try:
        yield opened
    except (EOFError, lzma.LZMAError, zlib.error):
        raise _damaged(name) from None
    except OSError as error:
        # Errors of the system have a number; those of gzip and bz2 have none.
        if error.errno is None:
            raise _damaged(name) from None
        raise
    finally:
        # Else it would close stdin.
        buffered.detach()


@contextmanager
def opened_text(path: Path) -> Iterator[BinaryIO]:
    """Open a file that may be compressed.

    Raises:
        InputRefused, OSError
    """
    with path.open("rb", buffering=0) as raw, decompressed(cast(BinaryIO, raw), str(path)) as text:
        yield text


def peeked(file: BinaryIO, num_bytes: int) -> bytes:
    """Return the first bytes of an opened text, at most `num_bytes`, without reading on."""
    head: bytes = cast(io.BufferedReader, file).peek(num_bytes)
    return head[:num_bytes]


def magic_of(path: Path) -> bytes:
    """Return the first bytes of a file, by which its kind is known."""
    with path.open("rb") as file:
        return file.read(MAGIC_BYTES)


def is_compressed(magic: bytes) -> bool:
    """Whether a file that begins so is compressed in a way that is read here."""
    return magic.startswith((GZIP, ZSTD, BZIP2, XZ))


def _opened(source: Any, magic: bytes, name: str) -> BinaryIO:
    for mark, (what, remedy) in _REFUSED.items():
        if magic.startswith(mark):
            raise InputRefused(f"{name} is {what}; {remedy}.")
    opened: Any = source
    if magic.startswith(GZIP):
        opened = gzip.GzipFile(fileobj=source)
    elif magic.startswith(BZIP2):
        opened = bz2.BZ2File(source)
    elif magic.startswith(XZ):
        opened = lzma.LZMAFile(source)  # noqa: SIM115 - closed with its source
    elif magic.startswith(ZSTD):
        zstandard = package("zstandard", "zstd", f"{name} is compressed with zstd")
        opened = _ZstdFrames(source, zstandard)
    return cast(BinaryIO, io.BufferedReader(opened) if opened is not source else source)


class _ZstdFrames(io.RawIOBase):
    """Decompresses one or several frames of zstd; unlike zstandard's reader it notices a cut."""

    def __init__(self, source: io.BufferedReader, zstandard: Any) -> None:
        self._source, self._damage = source, zstandard.ZstdError
        # The Pile was compressed with the largest window.
        self._context = zstandard.ZstdDecompressor(max_window_size=2**31)
        self._frame: Any = None
        self._given, self._ready = b"", memoryview(b"")

    def readable(self) -> bool:
        """Tell io.BufferedReader that this can be read."""
        return True

    def readinto(self, target: Any) -> int:
        """Fill `target`; return the number of bytes, 0 at the end."""
        while not self._ready:
            if not self._given:
                self._given = self._source.read1(_READ_BYTES)
            if not self._given:
                if self._frame is not None:
                    raise EOFError
                return 0
            self._decompress()
        num_bytes = min(len(self._ready), len(target))
        target[:num_bytes] = self._ready[:num_bytes]
        self._ready = self._ready[num_bytes:]
        return num_bytes

    def _decompress(self) -> None:
        self._frame = self._frame or self._context.decompressobj()
        try:
            self._ready = memoryview(self._frame.decompress(self._given))
        except self._damage:
            raise EOFError from None
        self._given = b""
        if self._frame.eof:
            self._given, self._frame = self._frame.unused_data, None


def _damaged(name: str) -> InputRefused:
    return InputRefused(f"{name} is damaged or incomplete: it cannot be decompressed to its end.")
