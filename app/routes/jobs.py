"""The routes of `/score`: submit, read, wait, cancel, erase."""

import hashlib
import time
from contextlib import suppress

from flask import Blueprint, Response, g, request
from werkzeug.datastructures import MultiDict

from app.openapi.operation import operation
from app.openapi.parameters import READ_PARAMETERS, SUBMIT_PARAMETERS, TEXTS, links
from app.requests.body import parse_body, read_body, refuse_encodings
from app.requests.headers import asked_wait_s, idempotency, idempotency_key, reused_key
from app.requests.intake import canonical_json, to_job
from app.requests.query import Query, options_of_texts, refuse_unknown_parameters, with_defaults
from app.responses.json import json_response
from app.responses.models import JobView
from app.responses.views import job_path, job_view
from app.service.parts import service
from contract.errors import (
    BodyTooLarge,
    BrokerUnavailable,
    EmptyText,
    IdempotencyKeyReused,
    JobEnded,
    JobGone,
    JobNotFound,
    MalformedBody,
    Overloaded,
    RequestInvalid,
    TextTooLarge,
    UnsupportedMediaType,
)
from contract.messages import Job, Record
from contract.store.job_store import Idempotency, KeyReused, QueueFull, Receipt

routes = Blueprint("jobs", __name__)


@routes.post("/score")
@operation(
    {200: JobView, 202: JobView},
    MalformedBody,
    JobGone,
    TextTooLarge,
    BodyTooLarge,
    UnsupportedMediaType,
    RequestInvalid,
    EmptyText,
    IdempotencyKeyReused,
    Overloaded,
    BrokerUnavailable,
    parameters=SUBMIT_PARAMETERS,
    body=TEXTS,
    links=links("task_id", "read", "cancel", "erase", "follow_job"),
)
def submit() -> Response:
    """Accept texts to score, and wait for their scores if asked to."""
    query = MultiDict(request.args)
    wait_s, preference = asked_wait_s(query)
    job = _job_of_request(query)
    receipt = _submit(job)
    record = _record_of(receipt, job)
    # The job is accepted: should Redis go from here on, its task ID is the answer.
    with suppress(BrokerUnavailable):
        record = service().endings.wait(record, wait_s)
    return _submitted(record, receipt, preference)


@routes.get("/score/<task_id>")
@operation(
    {200: JobView},
    JobNotFound,
    JobGone,
    RequestInvalid,
    BrokerUnavailable,
    parameters=READ_PARAMETERS,
)
def read(task_id: str) -> Response:
    """The state of a job, and its result or error once it has ended."""
    query = MultiDict(request.args)
    wait_s, preference = asked_wait_s(query)
    refuse_unknown_parameters(query, ())
    record = service().store.read(task_id)
    record = service().endings.wait(record, wait_s)
    return _job_response(record, 200, preference)


@routes.post("/score/<task_id>/cancel")
@operation({200: JobView}, JobNotFound, JobEnded, JobGone, BrokerUnavailable)
def cancel(task_id: str) -> Response:
    """End a job that has not ended, so that it is not scored or its score is not kept."""
    record = service().store.cancel(task_id)
    return _job_response(record, 200)


@routes.delete("/score/<task_id>")
@operation({204: None}, JobNotFound, BrokerUnavailable)
def erase(task_id: str) -> Response:
    """Forget text and result of a job, and cancel it if it has not ended."""
    service().store.erase(task_id)
    return Response(status=204)


# --- submitting -----------------------------------------------------------------------------------


def _job_of_request(query: Query) -> Job:
    settings = service().settings
    body = read_body(request, settings.max_body_bytes)
    g.body_bytes = len(body)
    refuse_encodings(request)
    fields = parse_body(body, request.headers.get("Content-Type", ""))
    fields = with_defaults(fields, options_of_texts(query))
    return to_job(fields, settings, now=time.time(), request_id=g.request_id)


def _submit(job: Job) -> Receipt:
    parts, idempotency = service(), _idempotency(job)
    try:
        return parts.store.submit(job, idempotency)
    except KeyReused:
        raise reused_key() from None
    except QueueFull as full:
        raise parts.capacity.overloaded(full.depth, parts.settings) from None


def _idempotency(job: Job) -> Idempotency | None:
    key = idempotency_key()
    return None if key is None else idempotency(key, hashlib.sha256(canonical_json(job)))


def _record_of(receipt: Receipt, job: Job) -> Record:
    if not receipt.is_replay:
        return Record(receipt.task_id, "QUEUED", job=job.facts())
    return service().store.read(receipt.task_id)


def _submitted(record: Record, receipt: Receipt, preference: str) -> Response:
    status = 200 if record.is_final else 202
    response = _job_response(record, status, preference, queued_bytes=receipt.depth.bytes)
    response.headers["Location"] = job_path(record.task_id, request.script_root)
    if receipt.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return response


# --- reading --------------------------------------------------------------------------------------


def _job_response(
    record: Record, status: int, preference: str = "", *, queued_bytes: int = 0
) -> Response:
    headers = {}
    if not record.is_final:
        headers["Retry-After"] = str(service().capacity.retry_after_s(queued_bytes))
    elif preference:
        headers["Preference-Applied"] = preference
    return json_response(job_view(record, request.script_root), status, headers=headers)
