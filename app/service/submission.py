"""Submits jobs to the queue, and holds a request until its job ends."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from app.service.components import Service
from contract.errors import BrokerUnavailable, IdempotencyKeyReused, JobNotFound, Overloaded
from contract.messages import Job, Record
from contract.store.admission import Idempotency, KeyReused, NoRoom, QueueFull, Receipt

# A wait that returns before this share of its time was turned away: too many requests wait.
_HELD_SHARE = 0.9


def submit(service: Service, job: Job, idempotency: Idempotency | None = None) -> Receipt:
    """Bind `job` to its model, accept it and queue it.

    Raises:
        ModelNotFound, Overloaded, BodyTooLarge, IdempotencyKeyReused, BrokerUnavailable
    """
    try:
        return service.jobs.submit(service.models.bound(job), idempotency)
    except KeyReused:
        raise key_reused() from None
    except QueueFull as full:
        raise service.retry.queue_full(full, service.settings) from None
    except NoRoom as full:
        raise service.retry.no_room(full) from None


def submit_and_read(
    service: Service, job: Job, idempotency: Idempotency | None
) -> tuple[Receipt, Record]:
    """Submit `job`, and read the record of the job that its Idempotency-Key stands for.

    Raises:
        ModelNotFound, Overloaded, IdempotencyKeyReused, JobGone, BrokerUnavailable
    """
    receipt = submit(service, job, idempotency)
    if receipt.is_replay:
        return receipt, service.jobs.read(receipt.task_id)
    return receipt, Record(receipt.task_id, "QUEUED", job=job.facts())


def key_reused() -> IdempotencyKeyReused:
    """The error for a request whose Idempotency-Key stands for another request."""
    return IdempotencyKeyReused(
        "This Idempotency-Key was used for another request; send a new key with this one."
    )


def score_now(
    service: Service, job: Job, *, limit_s: float, note_progress: Callable[[], None]
) -> Record:
    """The final record of `job`, which is erased afterwards: nobody else knows its task ID.

    Args:
        limit_s: the longest wait.
        note_progress: is called while the wait goes on, so that the connection is kept.

    Raises:
        Overloaded: the queue is full, too many requests wait, or the job did not end in time.
        BrokerUnavailable
    """
    with _submitted(service, job) as record:
        until = time.monotonic() + limit_s
        while not record.is_final:
            began_at = time.monotonic()
            # Shorter than the time after which a stalled connection is closed.
            pause_s = min(until - began_at, service.settings.web_timeout_s / 2)
            record = service.changes.wait(record, pause_s)
            note_progress()
            if not record.is_final:
                _check_time(service, began_at + pause_s * _HELD_SHARE, until, limit_s)
        return service.jobs.with_result(record)


@contextmanager
def _submitted(service: Service, job: Job) -> Iterator[Record]:
    receipt = submit(service, job)
    try:
        yield Record(receipt.task_id, "QUEUED", job=job.facts())
    finally:
        with suppress(BrokerUnavailable, JobNotFound):
            service.jobs.erase(receipt.task_id)


def _check_time(service: Service, held_until: float, until: float, limit_s: float) -> None:
    now = time.monotonic()
    if now < held_until:
        raise _overloaded(
            service,
            f"{service.settings.max_waiters} requests wait for results, which is the limit; "
            "try again after Retry-After seconds.",
        )
    if now >= until:
        raise _overloaded(
            service,
            f"The prompts were not scored within {limit_s:g} s; send fewer, or try later.",
        )


def _overloaded(service: Service, message: str) -> Overloaded:
    depth = service.jobs.depth()
    return Overloaded(message, retry_after_s=service.retry.retry_after_s(depth.bytes))
