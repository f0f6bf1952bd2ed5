"""Submits jobs to the queue, and holds a request until its job ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial

from werkzeug.exceptions import ClientDisconnected

from app.service import audit
from app.service.callers import Caller
from app.service.components import Service
from app.service.quotas import current_quota, note_quota_left, quota_exceeded
from app.service.traces import current_traceparent
from app.service.waiting import Inbox
from contract import keys
from contract.batches import Batch
from contract.errors import (
    BrokerUnavailable,
    IdempotencyKeyReused,
    JobGone,
    JobNotFound,
    Overloaded,
)
from contract.messages import Job, Record
from contract.store.admission.outcomes import (
    IDEMPOTENCY_TTL_S,
    Idempotency,
    KeyReused,
    NoRoom,
    QueueFull,
    QuotaUsedUp,
    Receipt,
)
from contract.store.batches.sealing import Accepted


def submit(
    service: Service,
    job: Job,
    idempotency: Idempotency | None = None,
    task_id: str | None = None,
) -> Receipt:
    """Bind `job` to its model, accept it and queue it.

    Raises:
        ModelNotFound, Overloaded, QuotaExceeded, BodyTooLarge, IdempotencyKeyReused,
        BrokerUnavailable
    """
    try:
        bound = replace(service.models.bound(job), traceparent=current_traceparent())
        receipt = service.jobs.submit(bound, idempotency, current_quota(), task_id)
    except KeyReused:
        raise key_reused() from None
    except QueueFull as full:
        raise service.retry.queue_full(full, service.settings) from None
    except NoRoom as full:
        raise service.retry.no_room(full) from None
    except QuotaUsedUp as used_up:
        raise quota_exceeded(used_up) from None
    note_quota_left(receipt.quota_left)
    outcome = "replayed" if receipt.is_replay else "accepted"
    audit.note(task_id=receipt.task_id, outcome=outcome, work_bytes=job.work_bytes)
    return receipt


def submit_and_read(
    service: Service, job: Job, idempotency: Idempotency | None, task_id: str | None = None
) -> tuple[Receipt, Record]:
    """Submit `job`, and read the record of the job that its Idempotency-Key stands for.

    Raises:
        ModelNotFound, Overloaded, IdempotencyKeyReused, JobGone, BrokerUnavailable
    """
    receipt = submit(service, job, idempotency, task_id)
    if receipt.is_replay:
        with replaying():
            return receipt, service.jobs.read(receipt.task_id)
    return receipt, Record(receipt.task_id, "QUEUED", job=job.facts())


@contextmanager
def replaying() -> Iterator[None]:
    """Say what to do where an Idempotency-Key stands for a job or a batch that is gone.

    It is not scored again: a client that erased a text may repeat the request by mistake.
    """
    try:
        yield
    except JobGone:
        raise JobGone(
            "What this Idempotency-Key stands for has expired or was erased. To score it again, "
            "send it with a new key; this one is free again "
            f"{IDEMPOTENCY_TTL_S // 3600} hours after its first use."
        ) from None


def read_accepted(service: Service, accepted: Accepted) -> Batch:
    """Read and log a batch of this request, or of an earlier one with its Idempotency-Key.

    Raises:
        JobGone, BrokerUnavailable
    """
    outcome = "replayed" if accepted.is_replay else "accepted"
    audit.note(batch_id=accepted.batch_id, outcome=outcome)
    with replaying() if accepted.is_replay else nullcontext():
        batch = service.batches.read(accepted.batch_id)
    audit.note(work_bytes=batch.num_bytes)
    return batch


def key_reused() -> IdempotencyKeyReused:
    """The error for a request whose Idempotency-Key stands for another request."""
    return IdempotencyKeyReused(
        "This Idempotency-Key was used for another request; send a new key with this one."
    )


@contextmanager
def submitted(service: Service, job: Job, caller: Caller) -> Iterator[Callable[[float], Record]]:
    """Submit `job`, and erase it at the end: nobody else knows its task ID.

    Gives a function that waits for its final record, for so many seconds at most. It raises:
        Overloaded: the job did not end in time.
        ClientDisconnected: the client has left.
        JobGone, BrokerUnavailable

    Raises:
        Overloaded: the queue is full, or too many requests wait.
        ModelNotFound, QuotaExceeded, BodyTooLarge, BrokerUnavailable
    """
    changes, task_id = service.changes, service.jobs.new_id(job.owner)
    changes.slots.acquire(caller.client)
    try:
        with changes.subscribed(keys.record(task_id), may_have_changed=False) as inbox:
            submit(service, job, task_id=task_id)
            record = Record(task_id, "QUEUED", job=job.facts())
            # Its texts do not stay in memory while it waits.
            del job
            try:
                yield partial(_final, service, record, caller, inbox)
            finally:
                with suppress(BrokerUnavailable, JobNotFound):
                    service.jobs.erase(task_id)
    finally:
        changes.slots.release(caller.client)


def _final(
    service: Service, record: Record, caller: Caller, inbox: Inbox, limit_s: float
) -> Record:
    record = service.changes.wait(record, limit_s, caller, has_slot=True, inbox=inbox)
    if record.is_final:
        return record
    if caller.has_left():
        raise ClientDisconnected
    if service.changes.is_released:
        raise _overloaded(service, "This web server is stopping; send the prompts again.")
    raise _overloaded(
        service, f"The prompts were not scored within {limit_s:g} s; send fewer, or try later."
    )


def _overloaded(service: Service, message: str) -> Overloaded:
    depth = service.jobs.depth()
    return Overloaded(message, retry_after_s=service.retry.retry_after_s(depth.bytes))
