"""Decodes lines and texts as UTF-8 or as a named encoding, and refuses others by name."""

import codecs
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from typing import BinaryIO

from evascore.readers.packages import InputRefused

BYTE_ORDER_MARK = codecs.BOM_UTF8
UTF8, BYTES = "utf-8", "bytes"
HEAD_BYTES = 4096
# Fewer bytes do not show an encoding.
_KNOWN_BYTES = 4
# UTF-32 comes first: its mark in little-endian begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def codec_of(encoding: str) -> str:
    """Return Python's name of an encoding; `bytes` stands for none.

    Raises:
        InputRefused: there is no such encoding.
    """
    if encoding == BYTES:
        return BYTES
    try:
        # Python also has codecs that convert bytes alone, such as hex; they refuse a string.
        "a".encode(encoding)
        return codecs.lookup(encoding).name
    except (LookupError, UnicodeError):
        raise InputRefused(
            "No such encoding; use utf-8, utf-16, latin-1, cp1252 or another one of Python's"
            " codecs, or bytes to score bytes as they are."
        ) from None


def check_head(head: bytes, name: str) -> None:
    """Refuse a file in UTF-16 or UTF-32, known from its first bytes.

    Raises:
        InputRefused
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            raise _other(name, encoding)
    # Without a mark, the zero bytes before or after ASCII characters show it.
    for offset, order in ((0, "BE"), (1, "LE")):
        beside = head[offset::2]
        if len(head) >= _KNOWN_BYTES and beside.count(0) > 0.6 * len(beside):
            width = "UTF-32" if head.count(0) > 0.7 * len(head) else "UTF-16"
            raise _other(name, f"{width}-{order}")


def check_line_ends(line: bytes, number: int, name: str) -> None:
    """Refuse a file whose lines end in carriage returns: all of it is its first line.

    Raises:
        InputRefused
    """
    if number == 1 and not line.endswith(b"\n") and b"\r" in line.rstrip(b"\r"):
        raise InputRefused(
            f"{name} ends its lines with carriage returns alone, as old Macs did; convert them to"
            " newlines first."
        )


def without_line_end(line: bytes, *, is_first: bool) -> bytes:
    """Remove LF or CR LF at the end of a line, and a byte order mark before the first one."""
    line = line.removeprefix(BYTE_ORDER_MARK) if is_first else line
    return line.removesuffix(b"\n").removesuffix(b"\r") if line.endswith(b"\n") else line


def check_utf8(line: bytes, number: int, name: str) -> None:
    """Refuse a line that is not UTF-8, with the likely encoding by its name.

    Raises:
        InputRefused
    """
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(line, error, f"{name} is not UTF-8: line {number}, byte") from None


def not_utf8(text: bytes, error: UnicodeDecodeError, where: str) -> InputRefused:
    """Make the error of a text in another encoding."""
    # Latin-1 has only control characters there; Windows has quotes and dashes.
    is_windows = any(0x80 <= byte < 0xA0 for byte in text)
    name, codec = ("Windows-1252", "cp1252") if is_windows else ("Latin-1", "latin-1")
    return InputRefused(
        f"{where} {error.start + 1}. It may be in {name}: give --encoding {codec} to convert it,"
        " or --encoding bytes to score bytes as they are."
    )


def decoded_lines(source: BinaryIO, codec: str, name: str) -> Iterator[str]:
    """Yield the lines of a file in another encoding, without their line ends and without a mark.

    Raises:
        InputRefused: it is not in this encoding.
    """
    # Only LF ends a line.
    text = TextIOWrapper(source, encoding=codec, newline="\n")
    try:
        for number, line in enumerate(text):
            if number == 0:
                check_line_ends(line.encode(errors="surrogatepass"), 1, name)
            whole = line.removesuffix("\n").removesuffix("\r") if line.endswith("\n") else line
            yield whole.removeprefix("\ufeff") if number == 0 else whole
    # Where UTF-16 has no byte order mark, it is no UnicodeDecodeError.
    except UnicodeError:
        raise not_in(codec, name) from None
    finally:
        # Otherwise it would close the file of the caller.
        text.detach()


def whole_text(content: bytes, codec: str, name: str) -> str | bytes:
    """Return a file that is one text: without mark, with newlines for CR LF.

    Raises:
        InputRefused: it is not in this encoding.
    """
    return content if codec == BYTES else decoded(content, codec, name).replace("\r\n", "\n")


def decoded(content: bytes, codec: str, name: str) -> str:
    """Decode a file that is one text, without its byte order mark.

    Raises:
        InputRefused: it is not in this encoding.
    """
    if codec == UTF8:
        check_head(content[:HEAD_BYTES], name)
        try:
            return content.decode().removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise not_utf8(content, error, f"{name} is not UTF-8: byte") from None
    try:
        # Unlike `bytes.decode`, it assumes no byte order for UTF-16 without a mark.
        text = TextIOWrapper(BytesIO(content), encoding=codec, newline="").read()
    except UnicodeError:
        raise not_in(codec, name) from None
    return text.removeprefix("\ufeff")


def not_in(codec: str, name: str) -> InputRefused:
    """Make the error of a file that is not in a named encoding."""
    remedy = "give another one"
    if codec in ("utf-16", "utf-32"):
        remedy = f"without a byte order mark, it may be in {codec}-le or {codec}-be"
    return InputRefused(f"{name} is not in the encoding {codec}; {remedy}.")


def decoded_head(head: bytes, encoding: str) -> str:
    """Decode the first bytes of a file, without its byte order mark and blanks before the rest.

    Returns:
        Its first characters; none if they cannot be decoded.
    """
    codec = UTF8 if encoding == BYTES else encoding
    try:
        text = codecs.getincrementaldecoder(codec)(errors="replace").decode(head)
    except UnicodeError:
        return ""
    return text.removeprefix("\ufeff").lstrip()


def _other(name: str, encoding: str) -> InputRefused:
    return InputRefused(
        f"{name} is in {encoding}; save it as UTF-8, or give --encoding {encoding.lower()}."
    )
