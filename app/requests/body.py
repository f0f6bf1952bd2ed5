"""Reads the body of a POST and parses it into fields; errors never quote it."""

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gevent
from flask import Request, g
from gunicorn.http.errors import ParseException
from werkzeug.datastructures import MultiDict
from werkzeug.http import parse_options_header

from app.requests.clients import client_of
from app.requests.query import refuse_unknown_parameters
from app.service.body_memory import UNCOUNTED_BYTES
from app.service.components import service
from contract.errors import (
    BodyTooLarge,
    MalformedBody,
    UnsupportedMediaType,
)
from contract.grammar.encodings import not_utf8
from contract.grammar.json_text import parse_json

JSON = "application/json"
_USUAL_MEDIA_TYPES = {
    "": "The request has no Content-Type",
    "application/x-www-form-urlencoded": (
        "The Content-Type is application/x-www-form-urlencoded, which curl -d sends by default"
    ),
    "multipart/form-data": "The Content-Type is multipart/form-data, which curl -F sends",
    "text/json": "The Content-Type is text/json",
    "application/x-ndjson": "The Content-Type is application/x-ndjson, which /batches takes",
    "application/jsonl": "The Content-Type is application/jsonl",
    "text/html": "The Content-Type is text/html",
    "application/gzip": "The Content-Type is application/gzip",
}
CUT_SHORT = (
    "The body ended before its announced length, or its chunks are malformed; send it again."
)
# A client has this long to send a body that is not an upload, or less if `web_timeout_s` says so.
BODY_S = 30
_TOO_SLOW = "The body did not arrive within {:g} s; send it faster, or less of it."
# A body is read, and cut, in pieces of this size.
PIECE_BYTES = 64 * 1024


def read_body(request: Request, max_bytes: int) -> bytes:
    """Read the whole body; stop at the first byte over `max_bytes`.

    Bytes are counted here because Werkzeug does not: it takes a truncated body for a whole one, and
    cuts a chunked one at the limit.

    Raises:
        BodyTooLarge, MalformedBody
        Overloaded: the bodies of other requests leave no room in memory.
    """
    announced = request.content_length
    if announced is None or announced <= max_bytes:
        limit_s = min(BODY_S, service().settings.web_timeout_s)
        try:
            with gevent.Timeout(limit_s, MalformedBody(_TOO_SLOW.format(limit_s))):
                body = b"".join(_pieces(request, max_bytes + 1))
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


def release_body() -> None:
    """Give back the memory that the body of this request was counted with."""
    held_bytes = g.pop("held_body_bytes", 0)
    if held_bytes:
        service().bodies.release(g.client_of_body, held_bytes)


def _pieces(request: Request, max_bytes: int) -> Iterator[bytes]:
    read, num_bytes = request.environ["wsgi.input"].read, 0
    while piece := read(min(PIECE_BYTES, max_bytes - num_bytes)):
        num_bytes += len(piece)
        if num_bytes > UNCOUNTED_BYTES:
            _count_in_memory(request, num_bytes - UNCOUNTED_BYTES)
        yield piece


def _count_in_memory(request: Request, num_bytes: int) -> None:
    if "client_of_body" not in g:
        g.client_of_body = client_of(request)
    service().bodies.take(g.client_of_body, num_bytes - g.get("held_body_bytes", 0))
    g.held_body_bytes = num_bytes


def read_json_body(request: Request, max_bytes: int) -> bytes:
    """Read a body that must be JSON and is not parsed here, of a request without a query.

    Raises:
        BodyTooLarge, MalformedBody, Overloaded, RequestInvalid, UnsupportedMediaType
    """
    body = read_body(request, max_bytes)
    g.body_bytes = len(body)
    refuse_encodings(request)
    media_type, parameters = parse_options_header(request.headers.get("Content-Type", ""))
    if media_type.lower() != JSON:
        raise _unsupported(media_type, body, (JSON,))
    _check_charset(parameters)
    refuse_unknown_parameters(MultiDict(request.args), ())
    return body


def refuse_encodings(request: Request) -> None:
    """Refuse a compressed body.

    Raises:
        UnsupportedMediaType
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType(
            "This route takes no compressed body; send it without Content-Encoding."
        )


def parse_body(body: bytes, content_type: str) -> dict[str, Any]:
    """Parse a body of any accepted media type into the fields of the JSON form.

    Raises:
        UnsupportedMediaType, MalformedBody, RequestInvalid
    """
    media_type, parameters = parse_options_header(content_type)
    parse = _PARSERS.get(media_type.lower())
    if parse is None:
        raise _unsupported(media_type, body, tuple(_PARSERS))
    _check_charset(parameters)
    return parse(body)


def came_as(media_type: str) -> str:
    """Name the Content-Type that came, if it is a usual one.

    Any other one is not repeated: it may be a text in the wrong place.
    """
    return _USUAL_MEDIA_TYPES.get(media_type.lower(), "This Content-Type is not supported")


def _unsupported(media_type: str, body: bytes, supported: tuple[str, ...]) -> UnsupportedMediaType:
    """Say which Content-Type came, and which to send instead."""
    is_json = body.lstrip()[:1] in (b"{", b"[") or "text/plain" not in supported
    fitting = JSON if is_json else "text/plain"
    others = [name for name in supported if name != fitting]
    besides = f" Also supported: {' and '.join(others)}." if others else ""
    return UnsupportedMediaType(
        f"{came_as(media_type)}; send {fitting}, "
        f"with curl by -H 'Content-Type: {fitting}'.{besides}"
    )


def _check_charset(parameters: Mapping[str, str]) -> None:
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaType(
            "The charset is not supported; send utf-8, or bytes as application/octet-stream."
        )


def _parse_text(body: bytes) -> dict[str, Any]:
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError as error:
        remedy = "save it as UTF-8, or send other bytes as application/octet-stream"
        raise MalformedBody(not_utf8(body, "body", error.start, remedy)) from None


def _parse_bytes(body: bytes) -> dict[str, Any]:
    return {"text_b64": base64.b64encode(body).decode("ascii")}


_PARSERS: dict[str, Callable[[bytes], dict[str, Any]]] = {
    JSON: parse_json,
    "text/plain": _parse_text,
    "application/octet-stream": _parse_bytes,
}
