"""Reads `POST /batches`: checks its headers and streams its lines to the upload receiver."""

from collections.abc import Iterator
from contextlib import suppress

from flask import Request, g
from werkzeug.datastructures import MultiDict
from werkzeug.http import parse_options_header

from app.requests.batch_lines import lines_of_array, read_options
from app.requests.batch_upload import Receiver
from app.requests.clients import client_of
from app.requests.headers import idempotency_key
from app.requests.upload_stream import decoder, limited, read_pieces
from app.service.components import Service
from contract.errors import MalformedBody, UnsupportedMediaType
from contract.grammar.lines import read_lines
from contract.store.batch_store import Accepted

NDJSON, JSON = "application/x-ndjson", "application/json"
_MEDIA_TYPES = (NDJSON, "application/jsonl", "application/ndjson", JSON)
# More of a refused upload is not read: the connection is closed.
MAX_REST_BYTES = 32 * 1024**2


def receive_upload(request: Request, service: Service) -> Accepted:
    """Store the lines of a request, and accept them as one batch.

    Raises:
        ClientError, Overloaded, BrokerUnavailable: ModelNotFound is one of the first.
    """
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
        retry_after_s=service.retry.retry_after_s,
        target=service.models.target,
        request_id=g.request_id,
        client=client_of(request),
    )
    limit_bytes = settings.max_body_bytes if is_array else settings.max_upload_bytes
    # The compressed bytes are limited too: a long compressed body may decompress to nothing.
    pieces = limited(decode(limited(_pieces(request, service), limit_bytes)), limit_bytes)
    lines = read_lines(
        receiver.digested(lines_of_array(pieces) if is_array else pieces),
        max_line_bytes=settings.max_body_bytes,
        max_lines=settings.max_upload_lines,
    )
    return receiver.receive(lines, key)


def read_rest(request: Request, service: Service) -> None:
    """Read on after a refusal: many clients send their whole body before they read the answer."""
    num_bytes = 0
    with suppress(MalformedBody):
        for piece in read_pieces(request):
            service.progress.note(request.environ)
            num_bytes += len(piece)
            if num_bytes > MAX_REST_BYTES:
                return


def _media_type(request: Request) -> str:
    media_type, parameters = parse_options_header(request.headers.get("Content-Type", ""))
    media_type = media_type.lower()
    if media_type not in _MEDIA_TYPES:
        raise UnsupportedMediaType(
            f"The Content-Type is not supported; send {' or '.join(_MEDIA_TYPES)}."
        )
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaType(
            "The charset is not supported; send utf-8, or bytes as text_b64."
        )
    return media_type


def _pieces(request: Request, service: Service) -> Iterator[bytes]:
    """The body as it arrives; its size is logged, and each piece counts as progress."""
    g.body_bytes = 0
    for piece in read_pieces(request):
        g.body_bytes += len(piece)
        service.progress.note(request.environ)
        yield piece
