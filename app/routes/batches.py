"""Routes of `/batches`: upload, read, page through results, cancel and erase."""

from flask import Blueprint, Response, request
from werkzeug.datastructures import MultiDict

from app.openapi.operation import operation
from app.openapi.parameters import (
    BATCH_PARAMETERS,
    LINES,
    RESULT_LINES,
    RESULT_PARAMETERS,
    links,
)
from app.requests.clients import caller_of
from app.requests.headers import asked_wait_s
from app.requests.page_query import take_page
from app.requests.query import refuse_unknown_parameters
from app.requests.upload_request import receive_upload, uploading
from app.responses.batch_answers import (
    accepted_batch_answer,
    batch_answer,
    page_answer,
)
from app.responses.batch_models import BatchView
from app.responses.no_content import no_content
from app.service import audit, batch_waits, submission
from app.service.components import service
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

routes = Blueprint("batches", __name__)


@routes.post("/batches")
@operation(
    {202: BatchView},
    MalformedBody,
    ModelNotFound,
    JobGone,
    BodyTooLarge,
    UnsupportedMediaType,
    RequestInvalid,
    IdempotencyKeyReused,
    Overloaded,
    QuotaExceeded,
    BrokerUnavailable,
    parameters=BATCH_PARAMETERS,
    body=LINES,
    links=links(
        *("batch_id", "read_batch", "read_results", "cancel_batch", "erase_batch", "follow_batch")
    ),
)
def create_batch() -> Response:
    """Upload any number of lines, each a text to score, as one batch."""
    with uploading(request, service()):
        accepted = receive_upload(request, service())
    batch = submission.read_accepted(service(), accepted)
    return accepted_batch_answer(service(), request, batch, accepted)


@routes.get("/batches/<batch_id>")
@operation(
    {200: BatchView}, JobNotFound, JobGone, RequestInvalid, BrokerUnavailable, parameters=("wait",)
)
def read_batch(batch_id: str) -> Response:
    """Read the state and the counts of a batch; with `wait`, answer when they change."""
    query = MultiDict(request.args)
    wait_s, _ = asked_wait_s(query)
    refuse_unknown_parameters(query, ())
    batch = batch_waits.read_when_changed(service(), batch_id, wait_s, caller_of(request))
    return batch_answer(service(), request, batch)


@routes.get("/batches/<batch_id>/results")
@operation(
    {200: None},
    JobNotFound,
    JobGone,
    RequestInvalid,
    Overloaded,
    BrokerUnavailable,
    parameters=RESULT_PARAMETERS,
    streams=RESULT_LINES,
)
def read_results(batch_id: str) -> Response:
    """Read a page of the results that are there, in the order of the lines."""
    query = MultiDict(request.args)
    wait_s, _ = asked_wait_s(query)
    page = take_page(query)
    refuse_unknown_parameters(query, ())
    batch = service().batches.read(batch_id)
    # There are no lines after the last one.
    page = page._replace(after=min(page.after, batch.total))
    parts = batch_waits.read_results(
        service(),
        batch,
        after=page.after,
        limit=page.limit,
        wait_s=wait_s,
        caller=caller_of(request),
    )
    return page_answer(service(), request, batch, page, parts)


@routes.post("/batches/<batch_id>/cancel")
@operation({200: BatchView}, JobNotFound, JobEnded, JobGone, BrokerUnavailable)
def cancel_batch(batch_id: str) -> Response:
    """Cancel a batch that has not ended; results that are there stay."""
    batch = service().batches.cancel(batch_id)
    audit.note(outcome="cancelled")
    return batch_answer(service(), request, batch)


@routes.delete("/batches/<batch_id>")
@operation({204: None}, JobNotFound, BrokerUnavailable)
def erase_batch(batch_id: str) -> Response:
    """Erase the texts and the results of a batch, and cancel it if it has not ended."""
    service().batches.erase(batch_id)
    audit.note(outcome="erased")
    return no_content()
