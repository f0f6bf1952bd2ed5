"""The routes of `/batches`: upload, read, follow, cancel, erase."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from flask import Blueprint, Response, g, request
from werkzeug.datastructures import MultiDict
from werkzeug.http import parse_options_header

from app.openapi.operation import operation
from app.openapi.parameters import (
    BATCH_PARAMETERS,
    LINES,
    RESULT_LINES,
    RESULT_PARAMETERS,
    links,
)
from app.requests.batch_lines import lines_of_array, read_options
from app.requests.batch_upload import Receiver
from app.requests.headers import asked_wait_s, idempotency_key
from app.requests.invalid import invalid
from app.requests.numbers import parse_whole
from app.requests.query import Query, refuse_unknown_parameters
from app.requests.upload_stream import decoder, limited, read_lines, read_pieces
from app.responses.batch_models import BatchView
from app.responses.compression import choose, encoded
from app.responses.json import json_response
from app.responses.views import batch_path, batch_view, result_line
from app.service.parts import service
from app.service.progress import Pace
from contract import keys
from contract.batches import Batch, Part, decode_lines
from contract.errors import (
    BodyTooLarge,
    BrokerUnavailable,
    IdempotencyKeyReused,
    JobEnded,
    JobGone,
    JobNotFound,
    MalformedBody,
    Overloaded,
    RequestInvalid,
    ServiceError,
    UnsupportedMediaType,
)
from contract.store.batch_store import Accepted

routes = Blueprint("batches", __name__)

NDJSON, JSON = "application/x-ndjson", "application/json"
_UPLOADED_TYPES = (NDJSON, "application/jsonl", "application/ndjson", JSON)
# Of a refused upload; a longer one is cut off.
MAX_READ_ON_BYTES = 32 * 1024**2
DEFAULT_PAGE_LINES, MAX_PAGE_LINES = 1000, 10_000
# Compressed, as it lies in Redis; held until it is sent.
MAX_PAGE_BYTES = 4 * 1024**2


@routes.post("/batches")
@operation(
    {202: BatchView},
    MalformedBody,
    JobGone,
    BodyTooLarge,
    UnsupportedMediaType,
    RequestInvalid,
    IdempotencyKeyReused,
    Overloaded,
    BrokerUnavailable,
    parameters=BATCH_PARAMETERS,
    body=LINES,
    links=links(
        *("batch_id", "read_batch", "read_results", "cancel_batch", "erase_batch", "follow_batch")
    ),
)
def create_batch() -> Response:
    """Accept lines of texts to score, however many, as one batch."""
    service().uploads.take()
    try:
        accepted = _receive()
    except ServiceError:
        _read_on()
        raise
    finally:
        service().uploads.leave()
    batch = service().batches.read(accepted.batch_id)
    response = _batch_response(batch, 202)
    response.headers["Location"] = batch_path(batch.id, request.script_root)
    if accepted.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return response


@routes.get("/batches/<batch_id>")
@operation(
    {200: BatchView}, JobNotFound, JobGone, RequestInvalid, BrokerUnavailable, parameters=("wait",)
)
def read_batch(batch_id: str) -> Response:
    """The state and the counts of a batch; with `wait`, as soon as they change."""
    query = MultiDict(request.args)
    wait_s, _ = asked_wait_s(query)
    refuse_unknown_parameters(query, ())
    batch = _read(batch_id)
    seen = batch.progress
    batch = _wait(batch, lambda found: found.is_final or found.progress != seen, wait_s)
    return _batch_response(batch, 200)


@routes.get("/batches/<batch_id>/results")
@operation(
    {200: None},
    JobNotFound,
    JobGone,
    RequestInvalid,
    BrokerUnavailable,
    parameters=RESULT_PARAMETERS,
    streams=RESULT_LINES,
)
def read_results(batch_id: str) -> Response:
    """The consecutive results that are there, in the order of the lines."""
    query = MultiDict(request.args)
    wait_s, _ = asked_wait_s(query)
    after = _count(query, "after", default=0, lowest=0)
    limit = min(_count(query, "limit", default=DEFAULT_PAGE_LINES, lowest=1), MAX_PAGE_LINES)
    refuse_unknown_parameters(query, ())
    batch = _read(batch_id)
    # Behind the last result there is nothing.
    after = min(after, batch.total)
    found = _results(batch_id, after, limit)
    if not found and not batch.is_final:
        _wait(batch, lambda _: bool(_results(batch_id, after, 1)), wait_s)
        found = _results(batch_id, after, limit)
    return _page_response(batch, found, after, limit)


@routes.post("/batches/<batch_id>/cancel")
@operation({200: BatchView}, JobNotFound, JobEnded, JobGone, BrokerUnavailable)
def cancel_batch(batch_id: str) -> Response:
    """End a batch that goes on; what is scored by then stays."""
    batch = service().batches.cancel(batch_id)
    return _batch_response(batch, 200)


@routes.delete("/batches/<batch_id>")
@operation({204: None}, JobNotFound, BrokerUnavailable)
def erase_batch(batch_id: str) -> Response:
    """Forget texts and results of a batch, and cancel it if it has not ended."""
    service().batches.erase(batch_id)
    return Response(status=204)


# --- uploading ------------------------------------------------------------------------------------


def _receive() -> Accepted:
    parts, settings = service(), service().settings
    options = read_options(MultiDict(request.args), settings)
    is_array = _media_type() == JSON
    if is_array:
        # It is one body, taken or refused as a whole.
        options = options.model_copy(update={"on_error": "fail"})
    decode = decoder(request.headers.get("Content-Encoding", ""))
    key = idempotency_key()
    receiver = Receiver(
        parts.batches,
        settings,
        options=options,
        retry_after_s=parts.capacity.retry_after_s,
        request_id=g.request_id,
    )
    limit_bytes = settings.max_body_bytes if is_array else settings.max_batch_bytes
    # What comes in counts too: a compressed body may stand for nothing, however long.
    pieces = limited(decode(limited(_counted_pieces(), limit_bytes)), limit_bytes)
    lines = read_lines(
        receiver.digested(lines_of_array(pieces) if is_array else pieces),
        max_line_bytes=settings.max_body_bytes,
        max_lines=settings.max_batch_lines,
    )
    return receiver.receive(lines, key)


def _media_type() -> str:
    media_type, parameters = parse_options_header(request.headers.get("Content-Type", ""))
    media_type = media_type.lower()
    if media_type not in _UPLOADED_TYPES:
        raise UnsupportedMediaType(f"Send {' or '.join(_UPLOADED_TYPES)} as Content-Type.")
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("The only charset is utf-8; send other bytes as text_b64.")
    return media_type


def _counted_pieces() -> Iterator[bytes]:
    """The body as it comes in; the log tells how much it was, the edge that the client goes on."""
    g.body_bytes = 0
    for piece in read_pieces(request):
        g.body_bytes += len(piece)
        service().pace.progressed(request.environ)
        yield piece


def _read_on() -> None:
    """Read some of what is left: many a client sends all of its body before it reads the answer."""
    num_bytes = 0
    with suppress(MalformedBody):
        for piece in read_pieces(request):
            service().pace.progressed(request.environ)
            num_bytes += len(piece)
            if num_bytes > MAX_READ_ON_BYTES:
                return


# --- reading --------------------------------------------------------------------------------------


def _read(batch_id: str) -> Batch:
    return service().batches.read(batch_id)


def _wait(batch: Batch, is_news: Callable[[Batch], bool], wait_s: float) -> Batch:
    return service().endings.wait_for(
        keys.batch(batch.id),
        batch,
        look=lambda: service().batches.read(batch.id),
        is_news=is_news,
        timeout_s=wait_s,
    )


def _batch_response(batch: Batch, status: int) -> Response:
    headers = {} if batch.is_final else {"Retry-After": _retry_after(batch)}
    return json_response(batch_view(batch, request.script_root), status, headers=headers)


def _retry_after(batch: Batch) -> str:
    """The time of one part, after which there may be news."""
    part_bytes = min(batch.num_bytes, service().settings.batch_bytes)
    return str(service().capacity.retry_after_s(part_bytes))


def _results(batch_id: str, after: int, limit: int) -> list[tuple[Part, bytes]]:
    return service().batches.results(batch_id, after, limit, MAX_PAGE_BYTES)


def _page_response(
    batch: Batch, found: list[tuple[Part, bytes]], after: int, limit: int
) -> Response:
    end = after
    if found:
        last = found[-1][0]
        end = min(last.first + last.num_lines, after + limit)
    encoding = choose(request)
    lines = encoded(_lines(found, after, end), encoding)
    response = Response(_paced(lines, service().pace, request.environ), content_type=NDJSON)
    response.headers["Next-After"] = str(end)
    response.headers["Vary"] = "Accept-Encoding"
    if encoding:
        response.headers["Content-Encoding"] = encoding
    if end < batch.total:
        path = f"{batch_path(batch.id, request.script_root)}/results?after={end}&limit={limit}"
        response.headers["Link"] = f'<{path}>; rel="next"'
        if end == after:
            response.headers["Retry-After"] = _retry_after(batch)
    return response


def _lines(found: list[tuple[Part, bytes]], after: int, end: int) -> Iterator[bytes]:
    for part, stored in found:
        lines = decode_lines(stored)[max(after - part.first, 0) : end - part.first]
        yield b"".join(map(result_line, lines))


def _paced(pieces: Iterator[bytes], pace: Pace, environ: Mapping[str, Any]) -> Iterator[bytes]:
    """The pieces; when the next is asked for, the client has taken the one before."""
    for piece in pieces:
        yield piece
        pace.progressed(environ)


def _count(query: Query, name: str, *, default: int, lowest: int) -> int:
    given = query.poplist(name)
    if not given:
        return default
    try:
        (count,) = map(parse_whole, given)
    except ValueError:
        count = -1
    if count < lowest:
        raise invalid(f"must be one whole number from {lowest}", parameter=name)
    return count
