"""Routes that stream the changes of a job or a batch as server-sent events."""

from functools import partial

from flask import Blueprint, Response, request

from app.openapi.operation import operation
from app.openapi.parameters import events_of
from app.requests.clients import caller_of
from app.responses.batch_models import BatchView
from app.responses.event_stream import event_answer, watched_batch, watched_job
from app.responses.models import JobView
from app.service.components import service
from contract.errors import BrokerUnavailable, JobGone, JobNotFound, Overloaded

routes = Blueprint("events", __name__)

_followed = partial(
    operation,
    {200: None, 204: None},
    *(JobNotFound, JobGone, Overloaded, BrokerUnavailable),
    parameters=("Last-Event-ID",),
)


@routes.get("/score/<task_id>/events")
@_followed(streams=events_of(JobView))
def follow_job(task_id: str) -> Response:
    """Stream each new state of a job until it ends; the result is not included."""
    watched = watched_job(service(), task_id, request.script_root)
    return event_answer(service(), request, watched, caller_of(request))


@routes.get("/batches/<batch_id>/events")
@_followed(streams=events_of(BatchView))
def follow_batch(batch_id: str) -> Response:
    """Stream each new state of a batch, with its counts, until it ends."""
    watched = watched_batch(service(), batch_id, request.script_root)
    return event_answer(service(), request, watched, caller_of(request))
