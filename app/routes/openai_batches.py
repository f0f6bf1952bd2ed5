"""Routes of `/v1/batches`, in OpenAI's form, over the batches of `/batches`."""

from typing import Any

from flask import Blueprint, Response, request

from app.openapi.operation import operation
from app.requests.openai_batch import OpenAIBatchBody, receive_openai_batch
from app.responses.json import json_response
from app.responses.openai_models import OpenAIBatchView
from app.responses.openai_views import openai_batch_view
from app.service import audit, submission
from app.service.components import service
from contract.batches import Batch
from contract.errors import (
    BodyTooLarge,
    BrokerUnavailable,
    IdempotencyKeyReused,
    JobEnded,
    JobGone,
    JobNotFound,
    MalformedBody,
    ModelNotFound,
    Overloaded,
    QuotaExceeded,
    RequestInvalid,
    UnsupportedMediaType,
)

routes = Blueprint("openai_batches", __name__)


@routes.post("/v1/batches")
@operation(
    {200: OpenAIBatchView},
    MalformedBody,
    ModelNotFound,
    JobNotFound,
    JobGone,
    BodyTooLarge,
    UnsupportedMediaType,
    RequestInvalid,
    IdempotencyKeyReused,
    Overloaded,
    QuotaExceeded,
    BrokerUnavailable,
    takes=OpenAIBatchBody,
)
def create_openai_batch() -> Response:
    """Score the lines of an uploaded file as one batch."""
    body, accepted = receive_openai_batch(request, service())
    batch = submission.read_accepted(service(), accepted)
    # A repeated request may have to do what the first one could not.
    service().files.note_batch(batch.id, body.model_dump())
    service().files.keep_for_batch(body.input_file_id, batch)
    return json_response(_view(batch))


@routes.get("/v1/batches/<batch_id>")
@operation({200: OpenAIBatchView}, JobNotFound, JobGone, BrokerUnavailable)
def read_openai_batch(batch_id: str) -> Response:
    """Read the state and the counts of a batch."""
    return json_response(_view(service().batches.read(batch_id)))


@routes.post("/v1/batches/<batch_id>/cancel")
@operation({200: OpenAIBatchView}, JobNotFound, JobEnded, JobGone, BrokerUnavailable)
def cancel_openai_batch(batch_id: str) -> Response:
    """Cancel a batch that has not ended; results that are there stay."""
    # Before it is cancelled: a batch of `POST /batches` is refused.
    _view(service().batches.read(batch_id))
    service().batches.cancel(batch_id)
    audit.note(outcome="cancelled")
    return json_response(_view(service().batches.read(batch_id)))


def _view(batch: Batch) -> dict[str, Any]:
    return openai_batch_view(batch, service().files.batch_facts(batch.id))
