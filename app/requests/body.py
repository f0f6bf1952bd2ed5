"""From the body of a POST to the fields of a request; nothing of it is quoted."""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from flask import Request, g
from gunicorn.http.errors import ParseException
from werkzeug.datastructures import MultiDict
from werkzeug.http import parse_options_header

from app.requests.invalid import invalid
from app.requests.query import refuse_unknown_parameters
from contract.errors import (
    BodyTooLarge,
    MalformedBody,
    UnsupportedMediaType,
)

# Above what the largest request within all other limits holds: 256 items of 256 continuations.
MAX_JSON_VALUES = 200_000
CUT_SHORT = "The body ended before its announced length, or its chunks are malformed."


def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body, of which not one byte over `max_bytes` is waited for.

    Werkzeug leaves the end of a body to Gunicorn, takes one that was cut short for whole, and cuts
    a chunked one at the limit; so the bytes are counted here.

    Raises:
        BodyTooLarge, MalformedBody
    """
    announced = request.content_length
    if announced is None or announced <= max_bytes:
        try:
            body = bytes(request.environ["wsgi.input"].read(max_bytes + 1))
        except (OSError, ParseException):
            raise MalformedBody(CUT_SHORT) from None
        if len(body) <= max_bytes:
            if len(body) < (announced or 0):
                raise MalformedBody(CUT_SHORT)
            return body
    raise BodyTooLarge(
        f"The request body is over {max_bytes} bytes; send its texts in several requests.",
        limit_bytes=max_bytes,
    )


def read_json(request: Request, max_bytes: int, *, max_values: int) -> dict[str, Any]:
    """The fields of a body that must be JSON, without a query.

    Raises:
        BodyTooLarge, MalformedBody, RequestInvalid, UnsupportedMediaType
    """
    body = read_body(request, max_bytes)
    g.body_bytes = len(body)
    refuse_encodings(request)
    media_type, parameters = parse_options_header(request.headers.get("Content-Type", ""))
    if media_type.lower() != "application/json":
        raise UnsupportedMediaType("Send application/json as Content-Type.")
    _check_charset(parameters)
    refuse_unknown_parameters(MultiDict(request.args), ())
    return parse_json(body, max_values=max_values)


def refuse_encodings(request: Request) -> None:
    """Refuse a compressed body.

    Raises:
        UnsupportedMediaType
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body uncompressed, without Content-Encoding.")


def parse_body(body: bytes, content_type: str) -> dict[str, Any]:
    """The fields of a request, as the JSON form has them, whichever media type it came in.

    Raises:
        UnsupportedMediaType, MalformedBody, RequestInvalid
    """
    media_type, parameters = parse_options_header(content_type)
    parse = _PARSERS.get(media_type.lower())
    if parse is None:
        raise UnsupportedMediaType(
            "Send application/json, text/plain or application/octet-stream as Content-Type."
        )
    _check_charset(parameters)
    return parse(body)


def _check_charset(parameters: Mapping[str, str]) -> None:
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaType(
            "The only charset is utf-8; send other bytes as application/octet-stream."
        )


def parse_json(
    body: bytes, what: str = "body", max_values: int = MAX_JSON_VALUES
) -> dict[str, Any]:
    """The fields of a JSON object; errors call it `what`.

    Raises:
        MalformedBody, RequestInvalid
    """
    fields = _load_json(body, what, max_values)
    if not isinstance(fields, dict):
        raise invalid(f"the {what} must be a JSON object", pointer="")
    return fields


def parse_json_array(body: bytes) -> list[Any]:
    """The elements of a JSON array.

    Raises:
        MalformedBody, RequestInvalid
    """
    elements = _load_json(body, "body", MAX_JSON_VALUES)
    if not isinstance(elements, list):
        raise invalid("the body must be a JSON array", pointer="")
    return elements


def _load_json(body: bytes, what: str, max_values: int) -> Any:
    _refuse_bombs(body, max_values)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # orjson names the reason and the place, never what stands there.
        raise MalformedBody(f"The {what} is not valid JSON: {error}.") from None
    _refuse_duplicate_keys(body, what)
    return value


def _parse_text(body: bytes) -> dict[str, Any]:
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError as error:
        raise MalformedBody(
            f"The body is not valid UTF-8 at byte {error.start}; "
            "send other bytes as application/octet-stream."
        ) from None


def _parse_bytes(body: bytes) -> dict[str, Any]:
    return {"text_b64": base64.b64encode(body).decode("ascii")}


_PARSERS: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "application/json": parse_json,
    "text/plain": _parse_text,
    "application/octet-stream": _parse_bytes,
}


def _refuse_bombs(body: bytes, max_values: int) -> None:
    """Refuse JSON of so many values that parsing alone would take seconds and half a gigabyte.

    Counts what separates values outside of strings; on what is not JSON the count may be wrong only
    after the place where the parser stops. `max_values` counts all; strings, lists and fields,
    which take more room than numbers, are never more than `MAX_JSON_VALUES`.
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
            raise invalid(f"at most {limit} JSON values in one request", pointer="")


class _DuplicateKey(Exception):
    """An object names a field twice."""


def _refuse_duplicate_keys(body: bytes, what: str) -> None:
    """Refuse objects that name a field twice: orjson keeps the last and would drop a text.

    The body is valid JSON of limited depth here; only then may the lenient parser see it.
    """
    try:
        _STRICT.decode(body.decode())
    except _DuplicateKey:
        raise MalformedBody(f"The {what} is ambiguous: an object names one field twice.") from None
    except RecursionError:
        raise MalformedBody(f"The {what} is not valid JSON: it is nested too deeply.") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _DuplicateKey
    return fields


# Made once: making it would take longer than reading a short line.
_STRICT = json.JSONDecoder(object_pairs_hook=_unique_keys)
