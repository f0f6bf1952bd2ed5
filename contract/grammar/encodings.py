"""Recognizes content that is not UTF-8 text by its first bytes, and names its format."""

from contract.errors import MalformedBody

# The byte order marks of Unicode, section 23.8. UTF-32 comes first: its mark in little-endian
# begins with that of UTF-16.
_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
# JSON without a mark begins with one of these characters, beside the zero bytes of the encoding.
_JSON_BEGINNINGS = tuple(
    (beginning, name)
    for first in (b"{", b"[", b'"')
    for beginning, name in (
        (first + b"\0\0\0", "UTF-32"),
        (b"\0\0\0" + first, "UTF-32"),
        (first + b"\0", "UTF-16"),
        (b"\0" + first, "UTF-16"),
    )
)
# RFC 1952, RFC 8878, and the format of ZIP files.
COMPRESSIONS = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
"""The first bytes of compressed content, and its name in a Content-Encoding."""
_BEGINNINGS = (
    *((mark, name, "decompress it first") for mark, name in COMPRESSIONS),
    (b"PK\x03\x04", "a ZIP file", "unpack it first"),
    *((mark, name, "save it as UTF-8") for mark, name in _MARKS),
)


def refuse_other_encodings(beginning: bytes, what: str) -> None:
    """Refuse UTF-16 and UTF-32 by name, from the first bytes of JSON in them.

    Raises:
        MalformedBody
    """
    for mark, name in (*_MARKS, *_JSON_BEGINNINGS):
        if beginning.startswith(mark):
            raise MalformedBody(f"The {what} is {name}, not UTF-8; save it as UTF-8.")


def not_utf8(content: bytes, what: str, at: int, remedy: str) -> str:
    """Say that `content` is not UTF-8, and what it is if its first bytes show it.

    Args:
        what: the name of the content in the message.
        at: the first byte that is not UTF-8.
        remedy: what to do with content of an unknown kind.
    """
    for beginning, name, own_remedy in _BEGINNINGS:
        if content.startswith(beginning):
            return f"The {what} is {name}, not UTF-8; {own_remedy}."
    return f"The {what} is not valid UTF-8 at byte {at}; {remedy}."
