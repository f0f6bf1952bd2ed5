"""Decides which deaths of workers count against a job: those of a process that was scoring it.

Before a worker scores a micro-batch it stores a note of the jobs in it (the key `aboard`), and
takes the note back afterwards. What happens to the note tells how the worker ended:

- The worker takes the note back itself: it stops, loses Redis, or ends by an error elsewhere. An
  error in the scoring loop is no such error; it counts like a crash.
- A successor holds the name of the worker: the process is dead, so the death counts. It does not if
  the file of `worker/process/scoring_mark.py` says that the process was not scoring.
- The lease expired and the worker is missing. That may be a partition, in which nobody died. So the
  note is set aside. It counts if the worker is missing for `MISSING_S`, or once a successor has its
  name. If the worker comes back before that, it takes its note back.

The counts are not in the messages: a death can be proven after the message was fetched by another.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import redis

from contract import keys
from contract.service_clock import CLOCK
from contract.store.connection.scripts import register
from contract.store.queue.leases import LOST_S

_LUA = Path(__file__).parent / "lua"
# A worker whose lease expired this long ago counts as dead.
MISSING_S = 60.0
# Longer than a job is retried; a count is of no use after that.
_COUNT_TTL_S = 24 * 3600


class Crashes(NamedTuple):
    """How many workers died while they scored a job."""

    deaths: int = 0
    was_alone: bool = False
    """Whether one of these micro-batches held no other job, so that no other can be at fault."""

    def are_too_many(self, max_crashes: int) -> bool:
        """Whether the job is at fault, and no other job of those micro-batches can be."""
        return self.deaths >= max_crashes and self.was_alone


def take_back(client: redis.Redis, worker: str) -> None:
    """Clear the suspects of a worker that is alive or ends by itself."""
    with client.pipeline() as pipe:
        pipe.delete(keys.aboard(worker), keys.missing_aboard(worker))
        pipe.zrem(keys.MISSING, worker)
        pipe.execute()


def set_aside(client: redis.Redis, worker: str) -> None:
    """Keep the suspects of a worker whose lease expired, until it is known whether it died."""
    names = [keys.aboard(worker), keys.missing_aboard(worker), keys.MISSING]
    register(client, "set_aside_suspects", _LUA)(keys=names, args=[worker])


def forget_worker(client: redis.Redis, worker: str) -> bool:
    """Note a worker whose messages were requeued as lost, unless it goes on after all.

    Returns:
        Whether it was noted.
    """
    names = [keys.WORKERS, keys.lease(worker), keys.unacked(worker), keys.LOST_WORKERS]
    return bool(register(client, "forget_worker", _LUA)(keys=names, args=[worker, LOST_S]))


def blame(client: redis.Redis, worker: str) -> list[str]:
    """Count the death of `worker` against each job that it was scoring; return their task IDs."""
    names = [keys.aboard(worker), keys.missing_aboard(worker), keys.MISSING, keys.TOTALS]
    args = [worker, keys.crashes(""), _COUNT_TTL_S]
    return [tag.decode() for tag in register(client, "blame", _LUA)(keys=names, args=args)]


def long_missing(client: redis.Redis) -> list[str]:
    """Return the workers that are missing for so long that they count as dead."""
    before = CLOCK.ask(client) - MISSING_S
    return [name.decode() for name in client.zrangebyscore(keys.MISSING, "-inf", before)]


def crashes_of(client: redis.Redis, task_ids: Iterable[str]) -> dict[str, Crashes]:
    """Return the crashes of each job, in one round trip."""
    asked = list(task_ids)
    with client.pipeline(transaction=False) as pipe:
        for task_id in asked:
            pipe.hmget(keys.crashes(task_id), "deaths", "was_alone")
        found = pipe.execute() if asked else []
    return {
        task_id: Crashes(int(deaths or 0), was_alone is not None)
        for task_id, (deaths, was_alone) in zip(asked, found, strict=True)
    }
