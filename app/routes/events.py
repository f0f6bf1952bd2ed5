"""Server-sent events: what happens to a job or a batch, told as it happens.

Each event is the whole state, so that a client that missed some has missed nothing; its ID stands
for that state, so that one that comes back is told only what it does not know.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from queue import Empty
from typing import Any, Generic, TypeVar

import orjson
from flask import Blueprint, Response, request

from app.openapi.operation import operation
from app.openapi.parameters import events_of
from app.responses.batch_models import BatchView
from app.responses.models import JobView
from app.responses.views import batch_view, job_view
from app.service.parts import service
from app.service.waiting import Inbox
from contract import keys
from contract.batches import Batch
from contract.errors import BrokerUnavailable, JobGone, JobNotFound, Overloaded
from contract.messages import Record

routes = Blueprint("events", __name__)

RECONNECT_MS = 2000
HEARTBEAT_S = 15.0
# That a worker has taken a job is not published: it is looked for this often.
LOOK_EVERY_S = 1.0
# A batch may have news many times a second.
MIN_PAUSE_S = 0.25

_Found = TypeVar("_Found", Record, Batch)

_followed = partial(
    operation,
    {200: None, 204: None},
    *(JobNotFound, JobGone, Overloaded, BrokerUnavailable),
    parameters=("Last-Event-ID",),
)


@dataclass(frozen=True, slots=True)
class Watched(Generic[_Found]):
    """What a stream tells of."""

    look: Callable[[], _Found]
    name: str
    """Of its events."""
    event_id: Callable[[_Found], str]
    """Stands for a state; whoever has seen it need not be told."""
    view: Callable[[_Found], dict[str, Any]]


@routes.get("/score/<task_id>/events")
@_followed(streams=events_of(JobView))
def follow_job(task_id: str) -> Response:
    """The states of a job as they come, until it has ended; the result is not among them."""
    root, store = request.script_root, service().store

    def view(record: Record) -> dict[str, Any]:
        return {name: value for name, value in job_view(record, root).items() if name != "result"}

    return _stream(
        keys.record(task_id),
        Watched(
            look=lambda: store.read(task_id),
            name="job",
            event_id=lambda record: record.state,
            view=view,
        ),
    )


@routes.get("/batches/<batch_id>/events")
@_followed(streams=events_of(BatchView))
def follow_batch(batch_id: str) -> Response:
    """The states and counts of a batch as they come, until it has ended."""
    root, store = request.script_root, service().batches
    return _stream(
        keys.batch(batch_id),
        Watched(
            look=lambda: store.read(batch_id),
            name="batch",
            event_id=lambda batch: "-".join(map(str, batch.progress)),
            view=lambda batch: batch_view(batch, root),
        ),
    )


def _stream(channel: str, watched: Watched[_Found]) -> Response:
    parts, environ = service(), request.environ
    first = watched.look()
    seen = request.headers.get("Last-Event-ID", "")
    if first.is_final and watched.event_id(first) == seen:
        # There will be no more: 204 is what keeps a browser from coming back.
        return Response(status=204)
    response = Response(
        iter(()), content_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )
    if request.method == "HEAD":
        return response
    parts.streams.take()
    events = follow(
        watched,
        parts.endings.hearing(channel),
        seen=seen,
        is_over=lambda: parts.endings.is_released or parts.pace.has_left(environ),
    )

    def paced() -> Iterator[bytes]:
        for event in events:
            yield event
            # The client has taken it.
            parts.pace.progressed(environ)

    response.response = paced()
    response.call_on_close(parts.streams.leave)
    return response


def follow(
    watched: Watched[_Found],
    hearing: AbstractContextManager[Inbox],
    *,
    seen: str,
    is_over: Callable[[], bool],
    heartbeat_s: float = HEARTBEAT_S,
) -> Iterator[bytes]:
    """The events of a stream, and comments while there are none.

    Args:
        hearing: gives an inbox that something is put into whenever there may be news.
        seen: ID of the last event that the client knows, '' for none.
        is_over: whether the client has left or the process is stopping.
    """
    yield f"retry: {RECONNECT_MS}\n\n".encode()
    told_at = time.monotonic()
    with hearing as inbox:
        while not is_over():
            try:
                found = watched.look()
            except BrokerUnavailable:
                found = None  # the heartbeats go on, and Redis comes back
            except JobGone:
                return
            if found is not None and watched.event_id(found) != seen:
                seen = watched.event_id(found)
                yield _event(watched.name, seen, watched.view(found))
                told_at = time.monotonic()
            if found is not None and found.is_final:
                return
            if time.monotonic() > told_at + heartbeat_s:
                yield b": still here\n\n"
                told_at = time.monotonic()
            _wait_for_news(inbox)


def _wait_for_news(inbox: Inbox) -> None:
    time.sleep(MIN_PAUSE_S)
    try:
        inbox.get(timeout=LOOK_EVERY_S - MIN_PAUSE_S)
        while True:
            inbox.get_nowait()
    except Empty:
        return


def _event(name: str, event_id: str, view: dict[str, Any]) -> bytes:
    return b"event: %s\nid: %s\ndata: %s\n\n" % (
        name.encode(),
        event_id.encode(),
        orjson.dumps(view),
    )
