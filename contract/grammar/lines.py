"""Splits a stream of bytes into its lines that are not blank, in bounded memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from contract.errors import BodyTooLarge, MalformedBody
from contract.grammar.encodings import COMPRESSIONS, refuse_other_encodings
from contract.grammar.json_text import BYTE_ORDER_MARK, parse_json

# The whitespace of JSON (RFC 8259, section 2); a form feed is none.
_WHITESPACE = b" \t\r\n"
# The longest byte order mark.
_MARK_BYTES = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank."""

    number: int
    """Its place in the stream, from 1, blank lines counted."""
    content: bytes | None
    """Without the whitespace around it; None if the line is longer than a line may be."""


def read_lines(pieces: Iterable[bytes], *, max_line_bytes: int, max_lines: int) -> Iterator[Line]:
    """Yield the lines that are not blank; a line over the limit comes without its content.

    Raises:
        BodyTooLarge: there are more than `max_lines`, blank ones counted.
        MalformedBody: the stream is in UTF-16 or UTF-32, or compressed.
    """
    number, begun, num_bytes = 1, list[bytes](), 0
    for piece in _in_utf8(pieces):
        if number - 1 + piece.count(b"\n") > max_lines:
            raise _too_many_lines(max_lines)
        for index, rest in enumerate(piece.split(b"\n")):
            if index:  # a newline stands before it
                yield from _line(number, begun, num_bytes, max_line_bytes)
                number, begun, num_bytes = number + 1, [], 0
            num_bytes += len(rest)
            if num_bytes > max_line_bytes:
                begun.clear()
            elif rest:
                begun.append(rest)
    for line in _line(number, begun, num_bytes, max_line_bytes):
        if number > max_lines:
            raise _too_many_lines(max_lines)
        yield line


def whole_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield each line of our own text, without its end; its reader alone holds it."""
    begun = list[bytes]()
    for piece in pieces:
        *ended, rest = piece.split(b"\n")
        for ending in ended:
            begun.append(ending)
            yield _joined(begun)
        begun.append(rest)
    if any(begun):
        yield _joined(begun)


def _joined(begun: list[bytes]) -> bytes:
    line = b"".join(begun)
    begun.clear()
    return line


def parse_line(line: Line, max_line_bytes: int) -> dict[str, Any]:
    """Parse the JSON object of a line.

    Raises:
        BodyTooLarge, MalformedBody, RequestInvalid
    """
    if line.content is None:
        raise BodyTooLarge(
            f"The line is over {max_line_bytes} bytes; split its text.", limit_bytes=max_line_bytes
        )
    return parse_json(line.content, "line")


def _in_utf8(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces; join the first ones until an encoding can be recognized."""
    beginning: bytes | None = b""
    for piece in pieces:
        if beginning is None:
            yield piece
            continue
        beginning += piece
        if len(beginning) >= _MARK_BYTES:
            _check_beginning(beginning)
            yield beginning
            beginning = None
    if beginning:
        _check_beginning(beginning)
        yield beginning


def _check_beginning(beginning: bytes) -> None:
    refuse_other_encodings(beginning, "upload")
    for mark, encoding in COMPRESSIONS:
        if beginning.startswith(mark):
            raise MalformedBody(
                f"The upload is compressed with {encoding}; send the header Content-Encoding: "
                f"{encoding}."
            )


def _line(number: int, begun: list[bytes], num_bytes: int, max_line_bytes: int) -> Iterator[Line]:
    if num_bytes > max_line_bytes:
        yield Line(number, None)
        return
    content = b"".join(begun).strip(_WHITESPACE)
    begun.clear()
    # A file that holds nothing but a byte order mark has no lines.
    if content and not (number == 1 and content == BYTE_ORDER_MARK):
        begun.append(content)
        del content
        # Its reader alone holds it.
        yield Line(number, begun.pop())


def _too_many_lines(max_lines: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The batch has more than {max_lines} lines; send them in several batches.",
        limit_lines=max_lines,
    )
