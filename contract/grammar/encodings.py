"""Names what bytes are that should be UTF-8 text, by how they begin."""

# RFC 1952, RFC 8878 and the byte order marks of Unicode, section 23.8.
_BEGINNINGS = (
    (b"\x1f\x8b", "gzip", "decompress it first"),
    (b"\x28\xb5\x2f\xfd", "zstd", "decompress it first"),
    (b"PK\x03\x04", "a ZIP file", "unpack it first"),
    (b"\xff\xfe", "UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16", "save it as UTF-8"),
)


def not_utf8(content: bytes, what: str, at: int, remedy: str) -> str:
    """Say that `content` is no UTF-8, and what it is if its first bytes tell.

    Args:
        what: the name of the content in the message.
        at: the first byte that is not UTF-8.
        remedy: what to do with content of an unknown kind.
    """
    for beginning, name, own_remedy in _BEGINNINGS:
        if content.startswith(beginning):
            return f"The {what} is {name}, not UTF-8; {own_remedy}."
    return f"The {what} is not valid UTF-8 at byte {at}; {remedy}."
