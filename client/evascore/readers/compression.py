"""Opens files that may be compressed, and refuses PDFs, archives and Office documents."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from evascore.readers.packages import InputRefused, package

GZIP, BZIP2, XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"
# The files of pzstd begin with a skippable frame (RFC 8878, section 3.1.2).
ZSTD = (b"\x28\xb5\x2f\xfd", *(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60)))
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

    There may be several members, streams or frames, and zeros behind those of gzip, bzip2 and xz.

    Args:
        name: of the file, for messages.

    Raises:
        InputRefused: it is not text, or it is damaged, which may show only while it is read.
    """
    buffered: Any = io.BufferedReader(cast(io.RawIOBase, source))
    opened = _opened(buffered, buffered.peek(MAGIC_BYTES)[:MAGIC_BYTES], name)
    try:
        yield opened
    except (EOFError, zlib.error):
        raise _damaged(name) from None
    except OSError as error:
        # Errors of the system have a number; those of gzip have none.
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
    return magic.startswith((GZIP, BZIP2, XZ, *ZSTD))


def _opened(source: Any, magic: bytes, name: str) -> BinaryIO:
    for mark, (what, remedy) in _REFUSED.items():
        if magic.startswith(mark):
            raise InputRefused(f"{name} is {what}; {remedy}.")
    opened: Any = source
    if magic.startswith(GZIP):
        opened = gzip.GzipFile(fileobj=source)
    elif magic.startswith(BZIP2):
        opened = _Streams(source, bz2.BZ2Decompressor, OSError, padding=b"\0")
    elif magic.startswith(XZ):
        opened = _Streams(source, _xz_stream, lzma.LZMAError, padding=b"\0")
    elif magic.startswith(ZSTD):
        zstandard = package("zstandard", "zstd", f"{name} is compressed with zstd")
        # The Pile was compressed with the largest window.
        context = zstandard.ZstdDecompressor(max_window_size=2**31)
        opened = _Streams(source, context.decompressobj, zstandard.ZstdError)
    return cast(BinaryIO, io.BufferedReader(opened) if opened is not source else source)


def _xz_stream() -> lzma.LZMADecompressor:
    # The default format would take another header for one of the older format .lzma.
    return lzma.LZMADecompressor(lzma.FORMAT_XZ)


class _Streams(io.RawIOBase):
    """Decompresses the streams of a file one after the other.

    Unlike `zstandard`'s reader it notices a cut. Unlike `LZMAFile` and `BZ2File` it does not end
    where a later stream is damaged, or stands behind padding.
    """

    def __init__(
        self,
        source: io.BufferedReader,
        begin: Callable[[], Any],
        damage: type[Exception],
        *,
        padding: bytes = b"",
    ) -> None:
        """Start at the first stream.

        Args:
            begin: makes the decompressor of one stream.
            damage: what it raises where the stream is damaged.
            padding: bytes that may stand between streams and behind the last one.
        """
        self._source, self._begin, self._damage = source, begin, damage
        self._padding = padding
        self._stream: Any = None
        self._given, self._ready = b"", memoryview(b"")

    def readable(self) -> bool:
        """Tell io.BufferedReader that this can be read."""
        return True

    def readinto(self, target: Any) -> int:
        """Fill `target`; return the number of bytes, 0 at the end."""
        while not self._ready:
            if self._needs_input() and not self._read():
                if self._stream is not None:
                    raise EOFError
                return 0
            self._decompress()
        num_bytes = min(len(self._ready), len(target))
        target[:num_bytes] = self._ready[:num_bytes]
        self._ready = self._ready[num_bytes:]
        return num_bytes

    def _needs_input(self) -> bool:
        """Whether the stream can give nothing without further bytes; zstd always needs them."""
        return getattr(self._stream, "needs_input", True)

    def _read(self) -> bool:
        """Read on, past padding between streams; return whether there are further bytes."""
        while True:
            if self._stream is None:
                self._given = self._given.lstrip(self._padding)
            if self._given:
                return True
            self._given = self._source.read1(_READ_BYTES)
            if not self._given:
                return False

    def _decompress(self) -> None:
        if self._stream is None:
            self._stream = self._begin()
        # A few bytes of bzip2 or xz may stand for gigabytes.
        bound = {"max_length": _READ_BYTES} if hasattr(self._stream, "needs_input") else {}
        try:
            self._ready = memoryview(self._stream.decompress(self._given, **bound))
        except self._damage:
            raise EOFError from None
        self._given = b""
        if self._stream.eof:
            self._given, self._stream = self._stream.unused_data, None


def _damaged(name: str) -> InputRefused:
    return InputRefused(f"{name} is damaged or incomplete: it cannot be decompressed to its end.")
