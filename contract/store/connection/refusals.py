"""Classifies why Redis refuses a write: memory full, disk full, read-only, slow, connection cut."""

from collections.abc import Callable
from typing import Literal, get_args

import redis

from contract import keys
from contract.store.connection.readings import Reading

Reason = Literal["full", "disk", "read_only", "slow", "cut", "refused"]
"""`full`: over `maxmemory`. `disk`: it cannot write its append-only file. `read_only`: it is a
replica, or has too few replicas, which is also how `make run` says that its disk is nearly full.
`slow`: the write took too long, but a PING is answered. `cut`: the connection was closed during
the write, but a PING is answered; a value over `proto-max-bulk-len` ends so. `refused`: any other.
"""
REASONS: tuple[Reason, ...] = get_args(Reason)
# Redis takes no write at all, so smaller writes need not be tried.
OF_ALL_WRITES: frozenset[Reason] = frozenset({"disk", "read_only"})

_BY_PREFIX: dict[str, Reason] = {
    "MISCONF": "disk",
    "NOREPLICAS": "read_only",
    "BUSY": "slow",
}
# redis-py puts the command before what Redis said of it.
_OF_PIPELINE = " of pipeline caused error: "


class NotStored(redis.ResponseError):
    """Redis answers but did not take a write; the jobs of the write can stay in hand."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"Redis did not take the write: {reason}")
        self.reason = reason


def refusal_reason(error: redis.RedisError, answers: Callable[[], bool]) -> Reason | None:
    """Return why Redis did not take a write; None if it is away.

    Args:
        answers: asks Redis on a new connection whether it answers. It is called after a time-out
            and after a connection that was closed.
    """
    if isinstance(error, NotStored):
        return error.reason
    if isinstance(error, redis.TimeoutError):
        return "slow" if answers() else None
    if isinstance(error, redis.ConnectionError):
        return "cut" if answers() else None
    if isinstance(error, redis.OutOfMemoryError):
        return "full"
    if isinstance(error, redis.ReadOnlyError):
        return "read_only"
    if isinstance(error, redis.ResponseError):
        said = str(error).rpartition(_OF_PIPELINE)[2]
        return _BY_PREFIX.get(said.partition(" ")[0], "refused")
    return None


def ask_writable() -> Reading[bool]:
    """Whether Redis takes writes; one whose memory is full takes those that need none."""
    try:
        yield [("DEL", keys.ABSENT)]
    except redis.ResponseError:
        return False
    return True
