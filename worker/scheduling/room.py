"""Computes how many jobs and bytes the next fetch may bring."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from contract import keys
from contract.messages import VERSION
from worker.scheduling.batching_delay import ANY_TIME
from worker.scheduling.filling import Budget, OpenJob
from worker.scheduling.long_jobs import have_room_for_another, long_jobs
from worker.scheduling.turns import quantum_bytes

# A job that takes several micro-batches stays in hand while others have their turns. There are many
# places, so that long jobs of other clients do not keep an express one from starting.
MAX_LONG_JOBS_BY_TURNS = 16
MAX_LONG_JOBS = 1024


class Room(NamedTuple):
    """How much of one priority the next fetch may bring."""

    express_jobs: int = 0
    express_bytes: int = 0
    express_long_jobs: int = 0
    """Express jobs that take several micro-batches."""
    jobs: int = 0
    bytes: int = 0
    long_jobs: int = 0
    """Jobs that take several micro-batches; those in hand do not count as bytes."""
    busy_clients: tuple[str, ...] = ()
    """Clients with a long job in hand: no other one of theirs is fetched."""
    long_bytes: int = 1
    """A job with more bytes of work is long."""

    @property
    def is_none(self) -> bool:
        """Whether the next fetch may bring nothing."""
        return not ((self.express_jobs and self.express_bytes) or (self.jobs and self.bytes))

    def beside(self, num_jobs: int, num_bytes: int) -> "Room":
        """Return what is left of it beside jobs that are not opened yet."""
        return self._replace(
            express_jobs=max(self.express_jobs - num_jobs, 0),
            express_bytes=max(self.express_bytes - num_bytes, 0),
            jobs=max(self.jobs - num_jobs, 0),
            bytes=max(self.bytes - num_bytes, 0),
        )

    def as_args(self) -> list[int | str]:
        """The arguments of one priority as `fetch.lua` takes them."""
        return [*self[:6], len(self.busy_clients), *self.busy_clients]


def no_room(budget: Budget) -> dict[int, Room]:
    """Return the room of a worker that takes no jobs now."""
    return dict.fromkeys(keys.PRIORITY_STEPS, Room(long_bytes=budget.bytes))


def room_for_fetch(jobs: Collection[OpenJob], budget: Budget) -> dict[int, Room]:
    """Return how much the next fetch may bring of each priority, besides the `jobs` in hand.

    The worker holds about one micro-batch of each priority, and one more of express jobs. Suspects
    of a crash come on top: they have micro-batches of their own.
    """
    return {
        priority: _room([job for job in jobs if job.priority == priority], budget)
        for priority in keys.PRIORITY_STEPS
    }


def _room(held: Collection[OpenJob], budget: Budget) -> Room:
    long = long_jobs(held, budget)
    has_place = len(long) < MAX_LONG_JOBS and have_room_for_another(long, budget)
    # Short express jobs would wait for the first slices of all long ones that came before them.
    has_express_place = has_place and not any(job.goes_first for job in long)
    num_by_turns = sum(not job.is_express for job in long)
    short = [job for job in held if job.num_bytes <= budget.bytes and not job.num_crashes]
    express = [job for job in short if job.goes_first]
    others = [job for job in short if not job.goes_first]
    return Room(
        *_left(express, budget),
        int(has_express_place),
        *_left(others, budget),
        max(MAX_LONG_JOBS_BY_TURNS - num_by_turns, 0) if has_place else 0,
        busy_clients=tuple({job.client: None for job in long}),
        long_bytes=budget.bytes,
    )


def _left(held: Collection[OpenJob], budget: Budget) -> tuple[int, int]:
    """Return the jobs and the bytes that a micro-batch has room for besides those in hand."""
    num_bytes = sum(job.waiting_bytes for job in held)
    return max(budget.slices - len(held), 0), max(budget.bytes - num_bytes, 0)


def fetch_arguments(
    fingerprint: str,
    rooms: Mapping[int, Room],
    worker: tuple[str, str],
    now: float,
    aboard: str = "",
    opens_after: float = ANY_TIME,
) -> tuple[list[str], list[Any]]:
    """Return the keys and the arguments of `fetch.lua`.

    Args:
        fingerprint: names the queue.
        rooms: what the fetch may bring, by priority.
        worker: keys of the worker's unacknowledged messages and of their index.
        now: Unix time, seconds.
        aboard: key of the worker's suspects, if it is idle: a job that comes alone is opened.
        opens_after: Unix time, seconds; a job that was submitted earlier is not opened.
    """
    names = [*worker, aboard]
    long_bytes = rooms[keys.INTERACTIVE].long_bytes
    args: list[Any] = [repr(now), keys.QUEUE, quantum_bytes(long_bytes), long_bytes]
    args += [keys.record(""), keys.payload(""), fingerprint, VERSION.major]
    args.append(repr(opens_after))
    for priority, room in rooms.items():
        queue = fingerprint, priority
        names += [keys.turns(*queue), keys.waiting(*queue), keys.deficits(*queue)]
        names.append(keys.queue_list(priority))
        args += room.as_args()
    return names, args
