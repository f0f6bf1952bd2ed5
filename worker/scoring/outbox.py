"""Writes how jobs ended, and keeps what Redis refuses, so that nothing is scored a second time.

Endings are written together. Where that is refused they are written one by one, the smallest first,
so that one job's ending never blocks another's. An ending that is refused alone is tried again
with a back-off. After `MAX_TRIES` the job fails instead, if Redis takes that.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from contract.errors import ResultNotStored, ServiceError
from contract.logs import get_logger
from contract.store.connection.refusals import OF_ALL_WRITES, NotStored, Reason
from contract.store.jobs.endings import Ending

log = get_logger(__name__)

# The waits after a refusal are 0.5, 1, 2, 4 and then 5 s. With a Redis that is slow each time, five
# tries take 18 s, less than the 30 s after which `/readyz` says `stalled`.
MAX_TRIES = 5
FIRST_DELAY_S, MAX_DELAY_S = 0.5, 5.0
# Redis takes an ending of this size within milliseconds; a larger one is written alone.
_TOGETHER_BYTES = 4 * 1024**2
# After this time the next turn writes the rest, so that micro-batches go on beside a slow Redis.
_ROUND_S = 5.0

_REMEDIES: dict[Reason, str] = {
    "full": "Redis is at its memory limit; try later, or ask the operator to raise maxmemory",
    "disk": "Redis cannot write to its disk; ask the operator to free disk space",
    "read_only": "Redis accepts no writes; ask the operator to free disk space or to repair the "
    "replica",
    "slow": "Redis did not store it in time; ask for fewer outputs (top_k, bytes, spans), "
    "try later, or ask the operator to raise EVASCORE_REDIS_TIMEOUT_S",
    "cut": "the connection to Redis closed during the write; ask for fewer outputs (top_k, bytes, "
    "spans), or ask the operator to check the limits of Redis and of the network",
    "refused": "Redis refused it; ask the operator to read the log of Redis",
}


class Ended(NamedTuple):
    """A job whose ending Redis has taken, and the state that the job is in now."""

    task_id: str
    state: str
    is_given_up: bool = False
    """Whether Redis refused even the short record of a failure, for a reason of this job alone."""


@dataclass(slots=True)
class _Waiting:
    """An ending that is not stored yet; times are those of the outbox's clock."""

    ending: Ending
    instead: Callable[[ServiceError], Ending] | None
    since: float
    due_at: float
    delay_s: float = 0.0
    """Wait after the last refusal; 0 before the first."""
    num_tries: int = 0
    """Refusals that may be for a reason of this ending; a full disk refuses every write."""

    @property
    def num_bytes(self) -> int:
        """Bytes of what is to be stored."""
        return self.ending.num_bytes


class Outbox:
    """The endings of one worker that are still to be written."""

    def __init__(
        self,
        write: Callable[[Sequence[Ending]], list[str]],
        *,
        on_refusal: Callable[[Reason, int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an empty outbox.

        Args:
            write: writes endings, and returns the state of each job; raises `NotStored`.
            on_refusal: is called with the reason and the number of endings that were refused.
        """
        self._write = write
        self._on_refusal = on_refusal
        self._clock = clock
        self._waiting: list[_Waiting] = []

    def __bool__(self) -> bool:
        """Whether endings wait to be written."""
        return bool(self._waiting)

    @property
    def num_bytes(self) -> int:
        """Bytes of the endings that wait."""
        return sum(each.num_bytes for each in self._waiting)

    @property
    def refused_since(self) -> float | None:
        """Since when the oldest refused ending waits, by the clock; None without one."""
        return min((each.since for each in self._waiting if each.delay_s), default=None)

    @property
    def delay_s(self) -> float | None:
        """Time until an ending is to be tried again; None without one."""
        due_at = min((each.due_at for each in self._waiting), default=None)
        return None if due_at is None else max(due_at - self._clock(), 0.0)

    def add(self, ending: Ending, instead: Callable[[ServiceError], Ending] | None = None) -> None:
        """Take an ending, which the next `flush` writes.

        Args:
            instead: makes the ending of the same job as failed; for an ending with a result.
        """
        now = self._clock()
        self._waiting.append(_Waiting(ending, instead, now, now))

    def flush(self) -> list[Ended]:
        """Write all endings that are due.

        Raises:
            redis.RedisError: Redis is away; what it took before that is not returned.
        """
        began_at = self._clock()
        due = [each for each in self._waiting if each.due_at <= began_at]
        ended: list[Ended] = []
        for group in _groups(sorted(due, key=lambda each: each.num_bytes)):
            ended += self._write_group(group, began_at + _ROUND_S)
            if self._clock() > began_at + _ROUND_S:
                break
        done = {each.task_id for each in ended}
        self._waiting = [each for each in self._waiting if each.ending.task_id not in done]
        return ended

    def _write_group(self, group: Sequence[_Waiting], until: float) -> list[Ended]:
        """Write endings together; where that is refused, one by one until `until`."""
        try:
            return self._written([each.ending for each in group])
        except NotStored as refusal:
            if len(group) == 1 or refusal.reason in OF_ALL_WRITES:
                return self._refused(group, refusal.reason)
        ended = []
        for each in group:
            ended += self._write_group([each], until)
            if self._clock() > until:
                break
        return ended

    def _refused(self, group: Sequence[_Waiting], reason: Reason) -> list[Ended]:
        """Note that the endings of `group` were refused; end those that were tried enough."""
        self._on_refusal(reason, len(group))
        log.warning(
            "endings_refused",
            reason=reason,
            task_id=group[0].ending.task_id,
            endings=len(group),
            bytes=sum(each.num_bytes for each in group),
            tries=group[0].num_tries,
        )
        ended = []
        for each in group:
            each.delay_s = min(max(2 * each.delay_s, FIRST_DELAY_S), MAX_DELAY_S)
            each.due_at = self._clock() + each.delay_s
            if reason in OF_ALL_WRITES:
                continue
            each.num_tries += 1
            if each.num_tries >= MAX_TRIES:
                ended += self._give_up(each, reason)
        return ended

    def _give_up(self, each: _Waiting, reason: Reason) -> list[Ended]:
        """Store that the result could not be stored; keep the result where Redis refuses that too.

        A job that Redis refuses for a reason of its own is given up.
        """
        given_up = [Ended(each.ending.task_id, "", is_given_up=True)] if reason == "refused" else []
        if each.instead is None:
            return given_up
        error = ResultNotStored(
            f"The result of {each.num_bytes} bytes could not be stored: {_REMEDIES[reason]}.",
            reason=reason,
            result_bytes=each.num_bytes,
        )
        try:
            ended = self._written([each.instead(error)])
        except NotStored:
            return given_up
        log.error(
            "result_not_stored",
            reason=reason,
            task_id=each.ending.task_id,
            bytes=each.num_bytes,
            tries=each.num_tries,
        )
        return ended

    def _written(self, endings: Sequence[Ending]) -> list[Ended]:
        states = self._write(endings)
        return [Ended(each.task_id, state) for each, state in zip(endings, states, strict=True)]


def _groups(due: Sequence[_Waiting]) -> Iterator[list[_Waiting]]:
    """Cut endings, the smallest first, into groups that are written together."""
    group: list[_Waiting] = []
    num_bytes = 0
    for each in due:
        if group and num_bytes + each.num_bytes > _TOGETHER_BYTES:
            yield group
            group, num_bytes = [], 0
        group.append(each)
        num_bytes += each.num_bytes
    if group:
        yield group
