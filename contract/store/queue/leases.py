"""Reads the leases of workers, whose values are their statuses; Redis errors reach the caller."""

from typing import Literal, get_args

import redis

from contract import keys
from contract.logs import get_logger
from contract.service_clock import CLOCK
from contract.store.connection.readings import Reading, read
from contract.worker_status import NotAWorkerStatus, WorkerStatus, decode_status

log = get_logger(__name__)

Cause = Literal["lost", "returned"]
CAUSES: tuple[Cause, ...] = get_args(Cause)
"""Why jobs are redelivered: their worker was lost, or it returned them itself."""
# The counters of redelivered jobs by their cause begin with this.
REDELIVERED = "redelivered:"
# A lost worker is shown for this long; by then another machine may have its work.
LOST_S = 3600


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


def ask_lost() -> Reading[list[str]]:
    """The names of workers that ended or lost Redis without giving their lease back.

    They are those whose lease has expired: without other workers until one starts, else for
    `LOST_S`. One that comes back is no longer lost.
    """
    since = CLOCK.now() - LOST_S
    members, noted = yield [
        ("SMEMBERS", keys.WORKERS),
        ("ZRANGE", keys.LOST_WORKERS, since, "+inf", "BYSCORE"),
    ]
    found = yield [("EXISTS", keys.lease(name.decode())) for name in members]
    expired = [name for name, exists in zip(members, found, strict=True) if not exists]
    return sorted(name.decode() for name in {*expired, *noted})


def _status(worker: str, raw: bytes) -> WorkerStatus | None:
    try:
        return decode_status(raw)
    except NotAWorkerStatus as error:
        log.warning("worker_status_unreadable", worker=worker, reason=str(error))
        return None
