"""Chooses the slices of the next micro-batch by priority and budget, without any side effect.

A slice is a piece of a job in a micro-batch. Most texts are one slice, long ones are several.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import NamedTuple

from contract import keys
from contract.errors import ServiceError
from model import Slice, SliceScores

# Bulk work earns this share of a full micro-batch whenever interactive work goes before it.
BULK_SHARE = 1 / 8
# Jobs that were in the last micro-batch of one dead worker are tried in small groups. A job that
# two dead workers had is tried alone.
SUSPECTS_TOGETHER = 16

Outcome = SliceScores | ServiceError
"""What became of a slice."""


@dataclass(slots=True)
class OpenJob:
    """A job in the worker's hands: its slices, and the outcomes of those that are scored."""

    task_id: str
    slices: Sequence[Slice]
    deadline_at: float
    """Unix time, seconds; applies until the first slice is scored."""
    priority: int = keys.INTERACTIVE
    num_crashes: int = 0
    """Workers that died while they scored this job."""
    result_bytes: Sequence[int] = ()
    """Upper bound of the result of each slice; without bounds the results count as 0 bytes."""
    outcomes: list[Outcome] = field(default_factory=list)
    """One per scored slice, in order; the slices behind them wait."""

    @property
    def is_done(self) -> bool:
        """Whether every slice has its outcome."""
        return len(self.outcomes) == len(self.slices)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the slices without outcome."""
        return sum(each.num_bytes for each in self.slices[len(self.outcomes) :])


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one micro-batch; a single slice is always allowed."""

    bytes: int
    slices: int
    result_bytes: int
    """The results of a micro-batch are in memory together."""


class Room(NamedTuple):
    """How much of one priority the next fetch may bring."""

    jobs: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Share:
    """The consecutive slices of one job that go into a micro-batch."""

    job: OpenJob
    slices: Sequence[Slice]
    result_bytes: int = 0
    """Upper bound of their results."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The next micro-batch, and the credit of bulk work for later ones."""

    shares: list[Share]
    bulk_credit_bytes: float

    @property
    def slices(self) -> list[Slice]:
        """All slices of this micro-batch, job by job."""
        return [each for share in self.shares for each in share.slices]

    @property
    def num_bytes(self) -> int:
        """Bytes that the model reads for this micro-batch."""
        return _num_bytes(self.shares)

    @property
    def num_slices(self) -> int:
        """Slices in this micro-batch."""
        return _num_slices(self.shares)


def choose_micro_batch(jobs: Iterable[OpenJob], budget: Budget, bulk_credit_bytes: float) -> Choice:
    """Choose the next micro-batch.

    Jobs of one priority go in the order given. Interactive jobs share no micro-batch with unpaid
    bulk jobs: all results of a micro-batch come together, so interactive jobs would wait for bulk.
    Bulk jobs must not starve either. So they earn a share of every interactive micro-batch, and
    what this credit pays for goes first in the next one. Suspects of a crash share no micro-batch
    with other jobs.

    Args:
        jobs: open jobs that are not done, in order of arrival.
        budget: limits of one micro-batch.
        bulk_credit_bytes: as returned by the last choice; 0 at first.
    """
    waiting = [job for job in jobs if not job.is_done]
    if not waiting:
        return Choice([], bulk_credit_bytes)
    if waiting[0].num_crashes:
        return Choice(_choose_suspects(waiting, budget), bulk_credit_bytes)
    trusted = [job for job in waiting if not job.num_crashes]
    bulk = [job for job in trusted if job.priority == keys.BULK]
    interactive = [job for job in trusted if job.priority != keys.BULK]
    if not (bulk and interactive):
        return Choice(_fill(trusted, budget), 0.0)
    paid: list[Share] = []
    if bulk_credit_bytes >= _next_bytes(bulk[0]):
        paid = _fill(bulk, replace(budget, bytes=min(int(bulk_credit_bytes), budget.bytes)))
    credit = bulk_credit_bytes - _num_bytes(paid) + budget.bytes * BULK_SHARE
    return Choice(_fill(interactive, budget, paid), credit)


def room_for_fetch(jobs: Collection[OpenJob], budget: Budget) -> dict[int, Room]:
    """Return how much the next fetch may bring of each priority, besides the `jobs` in hand.

    The worker holds about one micro-batch of each priority.
    """
    room = {}
    for priority in keys.PRIORITY_STEPS:
        held = [job for job in jobs if job.priority == priority]
        held_bytes = sum(job.waiting_bytes for job in held)
        room[priority] = Room(max(budget.slices - len(held), 0), max(budget.bytes - held_bytes, 0))
    return room


def choose_to_open(num_crashes: Mapping[str, int], in_hand: Collection[OpenJob]) -> list[str]:
    """Return the fetched jobs to open now, in order of arrival.

    A job that kills workers may do so when it is opened. So suspects are opened apart from all
    other jobs, just before they are scored.

    Args:
        num_crashes: of each fetched job, in order, the workers that died with it.
        in_hand: open jobs that are not done.
    """
    first = next(iter(num_crashes.values()), 0)
    if any(job.num_crashes for job in in_hand) or (first and in_hand):
        return []
    if first:
        alike = [task_id for task_id, crashes in num_crashes.items() if crashes == first]
        return alike[: SUSPECTS_TOGETHER if first == 1 else 1]
    return list(takewhile(lambda task_id: not num_crashes[task_id], num_crashes))


def _choose_suspects(waiting: list[OpenJob], budget: Budget) -> list[Share]:
    together = SUSPECTS_TOGETHER if waiting[0].num_crashes == 1 else 1
    alike = [job for job in waiting if job.num_crashes == waiting[0].num_crashes]
    return _fill(alike[:together], budget)


def _fill(jobs: Iterable[OpenJob], budget: Budget, begun: Sequence[Share] = ()) -> list[Share]:
    """Add slices of `jobs` to the shares that were `begun`, as far as the budget has room."""
    shares = list(begun)
    room_bytes = budget.bytes - _num_bytes(shares)
    room_slices = budget.slices - _num_slices(shares)
    room_results = budget.result_bytes - sum(share.result_bytes for share in shares)
    for job in jobs:
        chosen: list[Slice] = []
        chosen_results = 0
        for index in range(len(job.outcomes), len(job.slices)):
            num_bytes = job.slices[index].num_bytes
            result_bytes = job.result_bytes[index] if job.result_bytes else 0
            is_first = not shares and not chosen
            has_room = num_bytes <= room_bytes and result_bytes <= room_results
            if not is_first and not (has_room and room_slices > 0):
                break
            chosen.append(job.slices[index])
            room_bytes -= num_bytes
            room_results -= result_bytes
            chosen_results += result_bytes
            room_slices -= 1
        if chosen:
            shares.append(Share(job, chosen, chosen_results))
        if room_bytes <= 0 or room_slices <= 0:
            break
    return shares


def _num_bytes(shares: Iterable[Share]) -> int:
    return sum(each.num_bytes for share in shares for each in share.slices)


def _num_slices(shares: Iterable[Share]) -> int:
    return sum(len(share.slices) for share in shares)


def _next_bytes(job: OpenJob) -> int:
    return job.slices[len(job.outcomes)].num_bytes
