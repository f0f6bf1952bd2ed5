"""Routes of `/v1/files`, in OpenAI's form: uploads for batches, and the results of batches."""

from collections.abc import Iterator

from flask import Blueprint, Response, request

from app.openapi.operation import operation
from app.openapi.parameters import FORM, JSON_LINES
from app.requests.clients import caller_of
from app.requests.file_upload import receive_file
from app.requests.upload_request import NDJSON, uploading
from app.responses.answer_memory import STREAM_BYTES, hold
from app.responses.json import json_response
from app.responses.openai_models import FileDeleted, FileView
from app.responses.openai_views import (
    file_view,
    result_file,
    result_file_view,
    result_lines_of,
)
from app.service import audit
from app.service.batch_waits import MAX_PAGE_BYTES
from app.service.components import service
from app.service.turns import in_turns
from contract.batches import Batch
from contract.errors import (
    BodyTooLarge,
    BrokerUnavailable,
    JobGone,
    JobNotFound,
    MalformedBody,
    Overloaded,
    QuotaExceeded,
    RequestInvalid,
    UnsupportedMediaType,
)

routes = Blueprint("files", __name__)


@routes.post("/v1/files")
@operation(
    {200: FileView},
    MalformedBody,
    BodyTooLarge,
    UnsupportedMediaType,
    RequestInvalid,
    Overloaded,
    QuotaExceeded,
    BrokerUnavailable,
    body=FORM,
)
def upload_file() -> Response:
    """Upload lines of an OpenAI batch as a file."""
    with uploading(request, service()):
        file = receive_file(request, service())
    audit.note(outcome="stored")
    return json_response(file_view(file))


@routes.get("/v1/files/<file_id>")
@operation({200: FileView}, JobNotFound, JobGone, BrokerUnavailable)
def read_file(file_id: str) -> Response:
    """Show the facts of a file."""
    results = result_file(file_id)
    if results is None:
        return json_response(file_view(service().files.read(file_id)))
    return json_response(result_file_view(results, _ended(results.batch_id)))


@routes.get("/v1/files/<file_id>/content")
@operation({200: None}, JobNotFound, JobGone, Overloaded, BrokerUnavailable, streams=JSON_LINES)
def read_content(file_id: str) -> Response:
    """Download a file: an upload as it came, or the results of a batch."""
    results = result_file(file_id)
    if results is None:
        pieces = service().files.pieces(service().files.read(file_id))
    else:
        batch = _ended(results.batch_id)
        pieces = result_lines_of(service(), results, batch, caller_of(request))
    # Errors of the beginning are still an answer.
    first = next(pieces, b"")
    response = Response(in_turns(_after(first, pieces)), content_type=NDJSON)
    hold(response, STREAM_BYTES if results is None else MAX_PAGE_BYTES)
    return response


@routes.delete("/v1/files/<file_id>")
@operation({200: FileDeleted}, JobNotFound, BrokerUnavailable)
def delete_file(file_id: str) -> Response:
    """Delete a file; results are erased with their batch."""
    results = result_file(file_id)
    if results is None:
        service().files.delete(file_id)
    else:
        service().batches.erase(results.batch_id)
    audit.note(outcome="erased")
    return json_response({"id": file_id, "object": "file", "deleted": True})


def _ended(batch_id: str) -> Batch:
    batch = service().batches.read(batch_id)
    if not batch.is_final:
        raise JobNotFound("This batch has not ended, so it has no such file yet.")
    return batch


def _after(first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from pieces
