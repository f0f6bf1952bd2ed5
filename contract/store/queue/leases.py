"""Reads the leases of workers, whose values are their statuses; Redis errors reach the caller."""

from typing import Literal, get_args

import redis

from contract import keys
from contract.logs import get_logger
from contract.store.connection.readings import Reading, read
from contract.worker_status import NotAWorkerStatus, WorkerStatus, decode_status

log = get_logger(__name__)

Cause = Literal["lost", "returned"]
CAUSES: tuple[Cause, ...] = get_args(Cause)
"""Why jobs are redelivered: their worker was lost, or it returned them itself."""
# The counters of redelivered jobs by their cause begin with this.
REDELIVERED = "redelivered:"


def read_statuses(client: redis.Redis) -> list[WorkerStatus]:
    """See `ask_statuses`."""
    return read(client, ask_statuses())


def ask_statuses() -> Reading[list[WorkerStatus]]:
    """The status of every worker that holds a lease, by name.

    One that cannot be read is left out, so that the others still show.
    """
    (members,) = yield [("SMEMBERS", keys.WORKERS)]
    names = sorted(name.decode() for name in members)
    found = yield [("GET", keys.lease(name)) for name in names]
    statuses = (_status(name, raw) for name, raw in zip(names, found, strict=True) if raw)
    return [status for status in statuses if status is not None]


def _status(worker: str, raw: bytes) -> WorkerStatus | None:
    try:
        return decode_status(raw)
    except NotAWorkerStatus as error:
        log.warning("worker_status_unreadable", worker=worker, reason=str(error))
        return None
