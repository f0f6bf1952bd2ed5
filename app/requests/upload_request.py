"""Reads `POST /batches`: checks its headers and streams its lines to the upload receiver."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flask import Request, g
from werkzeug.datastructures import MultiDict
from werkzeug.http import parse_options_header

from app.requests.access import while_valid
from app.requests.batch_lines import lines_of_array, read_options
from app.requests.batch_upload import Receiver
from app.requests.body import came_as
from app.requests.clients import client_of
from app.requests.headers import idempotency_key
from app.requests.upload_stream import decoder, limited, read_pieces, small
from app.service.components import Service
from app.service.quotas import current_quota, note_quota_left, quota_exceeded
from app.service.turns import in_turns
from contract.errors import MalformedBody, ServiceError, UnsupportedMediaType
from contract.grammar.lines import read_lines
from contract.store.admission.outcomes import QuotaUsedUp
from contract.store.batches.sealing import Accepted

NDJSON, JSON = "application/x-ndjson", "application/json"
_OTHER_NAMES = ("application/jsonl", "application/ndjson")
_MEDIA_TYPES = (NDJSON, *_OTHER_NAMES, JSON)
# More of a refused upload is not read: the connection is closed.
MAX_REST_BYTES = 32 * 1024**2


@contextmanager
def uploading(request: Request, service: Service) -> Iterator[None]:
    """Hold a slot for uploads of the client; after a refusal, read what it still sends.

    Raises:
        Overloaded: there is no slot.
    """
    client = client_of(request)
    service.uploads.acquire(client)
    try:
        try:
            yield
        finally:
            service.uploads.release(client)
    except ServiceError:
        _read_rest(request, service)
        raise


def receive_upload(request: Request, service: Service) -> Accepted:
    """Store the lines of a request, and accept them as one batch.

    Raises:
        ClientError, ModelNotFound, Overloaded, QuotaExceeded, BrokerUnavailable
    """
    try:
        accepted = _receive(request, service)
    except QuotaUsedUp as used_up:
        raise quota_exceeded(used_up) from None
    note_quota_left(accepted.quota_left)
    return accepted


def _receive(request: Request, service: Service) -> Accepted:
    options = read_options(MultiDict(request.args), service.settings)
    settings = service.models.limits(options.model)
    is_array = _media_type(request) == JSON
    if is_array:
        # An array is one body, so it is accepted or refused as a whole.
        options = options.model_copy(update={"on_error": "fail"})
    decode = decoder(request.headers.get("Content-Encoding", ""))
    key = idempotency_key()
    receiver = Receiver(
        service.batches,
        settings,
        options=options,
        retry=service.retry,
        target=service.models.target,
        request_id=g.request_id,
        client=client_of(request),
        quota=current_quota(),
        large_work=service.large_work,
    )
    limit_bytes = settings.max_body_bytes if is_array else settings.max_upload_bytes
    # The compressed bytes are limited too: a long compressed body may decompress to nothing.
    pieces = limited(decode(limited(body_pieces(request, service), limit_bytes)), limit_bytes)
    pieces = lines_of_array(pieces, service.large_work) if is_array else small(pieces)
    lines = read_lines(
        receiver.digested(in_turns(pieces)),
        max_line_bytes=settings.max_body_bytes,
        max_lines=settings.max_upload_lines,
    )
    return receiver.receive(in_turns(lines), key)


def _read_rest(request: Request, service: Service) -> None:
    """Read on after a refusal: many clients send their whole body before they read the answer.

    A body that was too slow or cut short is not waited for again.
    """
    if g.get("has_body_ended"):
        return
    num_bytes = 0
    with suppress(MalformedBody):
        for piece in in_turns(read_pieces(request, service.settings.web_timeout_s)):
            num_bytes += len(piece)
            if num_bytes > MAX_REST_BYTES:
                return


def _media_type(request: Request) -> str:
    media_type, parameters = parse_options_header(request.headers.get("Content-Type", ""))
    media_type = media_type.lower()
    if media_type not in _MEDIA_TYPES:
        raise UnsupportedMediaType(
            f"{came_as(media_type)}; send {NDJSON}, with curl by "
            f"--data-binary @FILE -H 'Content-Type: {NDJSON}'. "
            f"Also supported: {', '.join(_OTHER_NAMES)}, and {JSON} for an array."
        )
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaType(
            "The charset is not supported; send utf-8, or bytes as text_b64."
        )
    return media_type


def body_pieces(request: Request, service: Service) -> Iterator[bytes]:
    """Yield the body as it arrives, while the key of the request is valid; its size is logged.

    Raises:
        MalformedBody, Unauthorized, Forbidden
    """
    g.body_bytes = 0
    try:
        for piece in while_valid(read_pieces(request, service.settings.web_timeout_s)):
            g.body_bytes += len(piece)
            yield piece
    except MalformedBody:
        g.has_body_ended = True
        raise
