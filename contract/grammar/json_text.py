"""Parses JSON strictly: UTF-8 only, no duplicate fields, a bounded number of values."""

import json
from typing import Any

import orjson

from contract.errors import MalformedBody
from contract.grammar.encodings import not_utf8, refuse_other_encodings
from contract.grammar.invalid import invalid

# Above what the largest request within all other limits holds: 256 items of 256 continuations.
MAX_JSON_VALUES = 200_000
# RFC 8259, section 8.1: a parser may ignore it. Windows programs begin files with it.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def parse_json(
    body: bytes, what: str = "body", max_values: int = MAX_JSON_VALUES
) -> dict[str, Any]:
    """Parse a JSON object; errors call it `what`. A byte order mark before it is skipped.

    Raises:
        MalformedBody, RequestInvalid
    """
    fields = _load_json(body, what, max_values)
    if not isinstance(fields, dict):
        raise invalid(f"the {what} must be a JSON object", pointer="")
    return fields


def parse_json_array(body: bytes) -> list[Any]:
    """Parse a JSON array.

    Raises:
        MalformedBody, RequestInvalid
    """
    elements = _load_json(body, "body", MAX_JSON_VALUES)
    if not isinstance(elements, list):
        raise invalid("the body must be a JSON array", pointer="")
    return elements


def _load_json(body: bytes, what: str, max_values: int) -> Any:
    content = body.removeprefix(BYTE_ORDER_MARK)
    if not content.strip():
        raise MalformedBody(f"The {what} is empty; send a JSON value.")
    text = _utf8(content, what, skipped_bytes=len(body) - len(content))
    _refuse_bombs(content, max_values)
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        # orjson names the reason and the place, never what stands there.
        remedy = "Correct it there and send it again."
        if what == "line" and error.msg.startswith("unexpected content after document"):
            remedy = (
                "Put each object on a line of its own. `curl -d` removes the ends of lines; "
                "`curl --data-binary` keeps them."
            )
        raise MalformedBody(f"The {what} is not valid JSON: {error}. {remedy}") from None
    _refuse_duplicate_keys(text, what)
    return value


def _utf8(content: bytes, what: str, *, skipped_bytes: int) -> str:
    refuse_other_encodings(content, what)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        remedy = "save it as UTF-8, or send other bytes as base64 (text_b64)"
        raise MalformedBody(not_utf8(content, what, skipped_bytes + error.start, remedy)) from None


def _refuse_bombs(body: bytes, max_values: int) -> None:
    """Refuse JSON with so many values that parsing it would take seconds and half a gigabyte.

    The count is of separators outside of strings, so it needs no parser. In malformed JSON it is
    right up to the first error, where parsing stops. `max_values` limits all values.
    `MAX_JSON_VALUES` limits strings, lists and fields, which take more memory than numbers.
    """
    if len(body) <= MAX_JSON_VALUES:
        return
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    num_large, num_values = unescaped.count(b'"') // 2, 0
    if num_large <= MAX_JSON_VALUES:
        outside_strings = b"".join(unescaped.split(b'"')[::2])
        num_large = sum(map(outside_strings.count, (b"{", b"[", b":")))
        num_values = num_large + outside_strings.count(b",")
    for count, limit in ((num_large, MAX_JSON_VALUES), (num_values, max_values)):
        if count > limit:
            raise invalid(
                f"has more than {limit} JSON values; send them in several requests", pointer=""
            )


class _DuplicateKey(Exception):
    """An object names a field twice."""


def _refuse_duplicate_keys(text: str, what: str) -> None:
    """Refuse objects that name a field twice: orjson keeps the last and would drop a text.

    The text is valid JSON of limited depth here; only then may the lenient parser see it.
    """
    try:
        _STRICT.decode(text)
    except _DuplicateKey:
        raise MalformedBody(
            f"The {what} is ambiguous: an object names a field twice; name each field once."
        ) from None
    except RecursionError:
        raise MalformedBody(
            f"The {what} is nested too deeply; a request needs at most 5 levels."
        ) from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _DuplicateKey
    return fields


# Made once: making it would take longer than reading a short line.
_STRICT = json.JSONDecoder(object_pairs_hook=_unique_keys)
