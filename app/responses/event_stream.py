"""Streams the states of a job or a batch as server-sent events.

Each event holds the whole state, so a client that missed some events has missed nothing. Its ID
stands for that state, so a client that reconnects gets only the states that it does not know.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

import orjson
from flask import Request, Response

from app.requests.access import key_check
from app.responses.no_content import no_content
from app.responses.views import batch_view, job_view
from app.service.callers import Caller
from app.service.components import Service
from app.service.waiting import MIN_PAUSE_S, Inbox
from contract import keys
from contract.batches import Batch
from contract.errors import BrokerUnavailable, JobGone, JobUnreadable, ServiceError
from contract.messages import Record

RECONNECT_MS = 2000
HEARTBEAT_S = 15.0
# Redis does not publish that a worker has taken a job, so the state is read this often.
READ_EVERY_S = 1.0

_Found = TypeVar("_Found", Record, Batch)


@dataclass(frozen=True, slots=True)
class Watched(Generic[_Found]):
    """The job or the batch of a stream."""

    channel: str
    """Redis publishes its changes there."""
    read: Callable[[], _Found]
    name: str
    """The name of its events."""
    event_id: Callable[[_Found], str]
    """Stands for a state."""
    view: Callable[[_Found], dict[str, Any]]


def watched_job(service: Service, task_id: str, root: str) -> Watched[Record]:
    """A job, whose events leave its result out."""

    def view(record: Record) -> dict[str, Any]:
        return {name: value for name, value in job_view(record, root).items() if name != "result"}

    return Watched(
        channel=keys.record(task_id),
        read=lambda: service.jobs.read(task_id),
        name="job",
        event_id=lambda record: record.state,
        view=view,
    )


def watched_batch(service: Service, batch_id: str, root: str) -> Watched[Batch]:
    """A batch, whose events hold its state and its counts."""
    return Watched(
        channel=keys.batch(batch_id),
        read=lambda: service.batches.read(batch_id),
        name="batch",
        event_id=lambda batch: "-".join(map(str, batch.progress)),
        view=lambda batch: batch_view(batch, root),
    )


def event_answer(
    service: Service, request: Request, watched: Watched[_Found], caller: Caller
) -> Response:
    """The stream of events, or 204 if the client knows the final state.

    Raises:
        JobNotFound, JobGone, BrokerUnavailable
        Overloaded: the limit of open streams is reached.
    """
    first = watched.read()
    seen = request.headers.get("Last-Event-ID", "")
    if first.is_final and watched.event_id(first) == seen:
        # 204 keeps a browser from reconnecting: there are no more events.
        return no_content()
    response = Response(
        iter(()), content_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )
    if request.method == "HEAD":
        return response
    service.streams.acquire(caller.client)
    is_refused = _refused_by(key_check())
    shared = partial(service.changes.read_shared, watched.channel, watched.read)
    response.response = follow(
        replace(watched, read=shared),
        service.changes.subscribed(watched.channel),
        seen=seen,
        is_over=lambda: service.changes.is_released or caller.has_left() or is_refused(),
    )
    response.call_on_close(lambda: service.streams.release(caller.client))
    return response


def _refused_by(check: Callable[[], None]) -> Callable[[], bool]:
    """Return a function that says whether `check` refuses the key of the stream by now."""

    def is_refused() -> bool:
        try:
            check()
        except ServiceError:
            return True
        return False

    return is_refused


def follow(
    watched: Watched[_Found],
    subscribed: AbstractContextManager[Inbox],
    *,
    seen: str,
    is_over: Callable[[], bool],
    heartbeat_s: float = HEARTBEAT_S,
) -> Iterator[bytes]:
    """The events of a stream, and comments while there are none.

    Args:
        subscribed: gives an inbox that is set whenever there may be a change.
        seen: ID of the last event that the client knows, '' for none.
        is_over: whether the client has left, its key ended, or the process is stopping.
    """
    yield f"retry: {RECONNECT_MS}\n\n".encode()
    sent_at = time.monotonic()
    with subscribed as inbox:
        while not is_over():
            try:
                found = watched.read()
            except (BrokerUnavailable, JobUnreadable):
                # Heartbeats go on until Redis comes back, or a worker ends the broken job.
                found = None
            except JobGone:
                return
            if found is not None and watched.event_id(found) != seen:
                seen = watched.event_id(found)
                yield _event(watched.name, seen, watched.view(found))
                sent_at = time.monotonic()
            if found is not None and found.is_final:
                return
            if time.monotonic() > sent_at + heartbeat_s:
                yield b": still here\n\n"
                sent_at = time.monotonic()
            _wait_for_change(inbox)


def _wait_for_change(inbox: Inbox) -> None:
    time.sleep(MIN_PAUSE_S)
    inbox.wait(READ_EVERY_S - MIN_PAUSE_S)
    inbox.clear()


def _event(name: str, event_id: str, view: dict[str, Any]) -> bytes:
    return b"event: %s\nid: %s\ndata: %s\n\n" % (
        name.encode(),
        event_id.encode(),
        orjson.dumps(view),
    )
