"""Routes of `/score`: submit, read, wait for, cancel and erase jobs."""

from contextlib import suppress

from flask import Blueprint, Response, request
from werkzeug.datastructures import MultiDict

from app.openapi.operation import operation
from app.openapi.parameters import READ_PARAMETERS, SUBMIT_PARAMETERS, TEXTS, links
from app.requests.access import owner
from app.requests.body import release_body
from app.requests.clients import caller_of
from app.requests.headers import asked_wait_s
from app.requests.query import Query, refuse_unknown_parameters
from app.requests.score_request import idempotency_of, read_job
from app.responses.job_answers import accepted_job_answer, job_answer
from app.responses.models import JobView
from app.responses.no_content import no_content
from app.service import audit, submission
from app.service.components import service
from contract import keys
from contract.errors import (
    BodyTooLarge,
    BrokerUnavailable,
    EmptyText,
    IdempotencyKeyReused,
    JobEnded,
    JobGone,
    JobNotFound,
    MalformedBody,
    ModelNotFound,
    Overloaded,
    QuotaExceeded,
    RequestInvalid,
    TextTooLarge,
    UnsupportedMediaType,
)
from contract.messages import Record
from contract.store.admission.outcomes import Receipt

routes = Blueprint("jobs", __name__)


@routes.post("/score")
@operation(
    {200: JobView, 202: JobView},
    MalformedBody,
    ModelNotFound,
    JobGone,
    TextTooLarge,
    BodyTooLarge,
    UnsupportedMediaType,
    RequestInvalid,
    EmptyText,
    IdempotencyKeyReused,
    Overloaded,
    QuotaExceeded,
    BrokerUnavailable,
    parameters=SUBMIT_PARAMETERS,
    body=TEXTS,
    links=links("task_id", "read", "cancel", "erase", "follow_job"),
)
def submit() -> Response:
    """Submit texts to score; with `wait`, answer when they are scored."""
    query = MultiDict(request.args)
    wait_s, preference = asked_wait_s(query)
    if wait_s > 0:
        receipt, record = _accepted_and_waited_for(query, wait_s)
    else:
        receipt, record = _accepted(query)
    return accepted_job_answer(service(), request, record, receipt, preference)


def _accepted_and_waited_for(query: Query, wait_s: float) -> tuple[Receipt, Record]:
    changes, task_id = service().changes, service().jobs.new_id(owner())
    # Subscribed before it is submitted, the job needs no look at Redis to learn how it ended.
    with changes.subscribed(keys.record(task_id), may_have_changed=False) as inbox:
        receipt, record = _accepted(query, task_id)
        of_this_job = inbox if receipt.task_id == task_id else None
        # The job is accepted: if Redis fails from here on, the answer still holds its task ID.
        with suppress(BrokerUnavailable):
            record = changes.wait(record, wait_s, caller_of(request), inbox=of_this_job)
    return receipt, record


def _accepted(query: Query, task_id: str | None = None) -> tuple[Receipt, Record]:
    """Accept the job of this request; its texts do not stay in memory while the request waits."""
    try:
        job = read_job(request, query, service())
        return submission.submit_and_read(service(), job, idempotency_of(job), task_id)
    finally:
        release_body()


@routes.get("/score/<task_id>")
@operation(
    {200: JobView},
    JobNotFound,
    JobGone,
    RequestInvalid,
    Overloaded,
    BrokerUnavailable,
    parameters=READ_PARAMETERS,
)
def read(task_id: str) -> Response:
    """Read the state of a job, and its result or error once it has ended."""
    query = MultiDict(request.args)
    wait_s, preference = asked_wait_s(query)
    refuse_unknown_parameters(query, ())
    record = service().changes.wait(service().jobs.read(task_id), wait_s, caller_of(request))
    return job_answer(service(), request, record, preference=preference)


@routes.post("/score/<task_id>/cancel")
@operation({200: JobView}, JobNotFound, JobEnded, JobGone, BrokerUnavailable)
def cancel(task_id: str) -> Response:
    """Cancel a job that has not ended: it is not scored, or its score is dropped."""
    record = service().jobs.cancel(task_id)
    audit.note(outcome="cancelled")
    return job_answer(service(), request, record)


@routes.delete("/score/<task_id>")
@operation({204: None}, JobNotFound, BrokerUnavailable)
def erase(task_id: str) -> Response:
    """Erase the texts and the result of a job, and cancel it if it has not ended."""
    service().jobs.erase(task_id)
    audit.note(outcome="erased")
    return no_content()
