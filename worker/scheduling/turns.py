"""Lets clients take turns in a micro-batch: deficit round robin, in bytes of work.

In each round a client may take `quantum` bytes more, and keeps what it did not use for later
(Shreedhar and Varghese, "Efficient Fair Queueing using Deficit Round Robin", 1995). So each client
gets its share, whatever the sizes of its texts. `worker/queue/lua/fetch.lua` does so with waiting
messages.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from worker.scheduling.filling import Filling, OpenJob

# Turns of a client in one micro-batch that it has to itself.
TURNS_PER_MICRO_BATCH = 8


@dataclass(frozen=True, slots=True)
class ClientTurns:
    """Whose turn it is, for the next micro-batch."""

    order: tuple[str, ...] = ()
    """Clients, the next one first."""
    deficits: Mapping[str, int] = field(default_factory=dict)
    """Bytes that a client did not use in its last turn."""
    were_passed_over: bool = False
    """Whether express jobs left others no room when this priority had its last turn."""
    without_room: tuple[str, ...] = ()
    """The first clients of `order`, if their next slices are due and found no room."""


def quantum_bytes(max_bytes: int) -> int:
    """Return what a client may take in one turn, given the bytes of a micro-batch."""
    return max(max_bytes // TURNS_PER_MICRO_BATCH, 1)


def fill_by_turns(
    filling: Filling, jobs: Iterable[OpenJob], turns: ClientTurns, quantum: int
) -> ClientTurns:
    """Add slices of `jobs` to a micro-batch: express jobs first, then client by client.

    If `turns.were_passed_over`, jobs that are not express get up to half of this micro-batch first.

    Args:
        jobs: jobs that are not done, in order of arrival.
        turns: as the last call returned it.
        quantum: bytes of a turn.
    """
    waiting = list(jobs)
    others = [job for job in waiting if not job.goes_first]
    num_before = filling.num_slices
    if turns.were_passed_over:
        turns = _take_turns(filling, others, turns, quantum, until_bytes=filling.max_bytes // 2)
    num_ahead = filling.num_slices
    filling.add_all((job for job in waiting if job.goes_first), max_bytes_each=quantum)
    has_express = filling.num_slices > num_ahead
    turns = _take_turns(filling, waiting, turns, quantum, until_bytes=filling.max_bytes)
    filling.add_all(waiting)
    chosen = {share.job.task_id for share in filling.shares}
    is_any_left_out = bool(others) and filling.num_slices > num_before
    is_any_left_out &= not any(job.task_id in chosen for job in others)
    were_passed_over = is_any_left_out or (has_express and bool(turns.without_room))
    return replace(turns, were_passed_over=were_passed_over)


def _take_turns(
    filling: Filling, jobs: Iterable[OpenJob], turns: ClientTurns, quantum: int, until_bytes: int
) -> ClientTurns:
    jobs_of = _jobs_by_client(jobs)
    order = deque([client for client in turns.order if client in jobs_of])
    order += [client for client in jobs_of if client not in order]
    deficits = {client: turns.deficits.get(client, 0) for client in jobs_of}
    without_room: list[str] = []
    while order and filling.num_bytes < until_bytes and not filling.is_full:
        client = order.popleft()
        job, cost = _next(filling, jobs_of[client])
        if job is not None and deficits[client] < cost:
            deficits[client] += quantum
        while job is not None and cost <= deficits[client] and filling.has_room_for(job):
            filling.add(job)
            deficits[client] -= cost
            job, cost = _next(filling, jobs_of[client])
        if job is None:
            del deficits[client]
        elif cost <= deficits[client]:
            # It goes first in the next micro-batch.
            without_room.append(client)
        else:
            order.append(client)
    return ClientTurns((*without_room, *order), deficits, without_room=tuple(without_room))


def _jobs_by_client(jobs: Iterable[OpenJob]) -> dict[str, deque[OpenJob]]:
    """The jobs of each client; those that were in no micro-batch for the longest time first."""
    jobs_of: dict[str, deque[OpenJob]] = {}
    for job in sorted(jobs, key=lambda job: job.last_micro_batch):
        jobs_of.setdefault(job.client, deque()).append(job)
    return jobs_of


def _next(filling: Filling, line: deque[OpenJob]) -> tuple[OpenJob | None, int]:
    """The first job of a line with a slice to add, and the bytes of that slice."""
    while line:
        found = filling.next_slice(line[0])
        if found is not None:
            return line[0], found.num_bytes
        line.popleft()
    return None, 0
