"""Chooses the slices of the next micro-batch by priority and budget, without any side effect.

A slice is a piece of a job in a micro-batch. Most texts are one slice, long ones are several.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile

from contract import keys
from model import Slice
from worker.scheduling.filling import Budget, Filling, OpenJob, Share
from worker.scheduling.turns import ClientTurns, fill_by_turns, quantum_bytes

# Bulk work earns this share of a full micro-batch whenever interactive work goes before it.
BULK_SHARE = 1 / 8
# Jobs that were in the last micro-batch of one dead worker are tried in small groups. A job that
# two dead workers had is tried alone.
SUSPECTS_TOGETHER = 16


@dataclass(frozen=True, slots=True)
class Credit:
    """What earlier micro-batches leave to the next one; the first one has the default."""

    bulk_bytes: float = 0.0
    """What bulk work has earned while interactive work went before it."""
    turns: Mapping[int, ClientTurns] = field(default_factory=dict)
    """Whose turn it is, by priority."""
    is_turn_of_interactive: bool = False
    """Whether interactive jobs were passed over, so that none goes before them in the next one."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The next micro-batch, and the credit for later ones."""

    shares: list[Share]
    credit: Credit

    @property
    def slices(self) -> list[Slice]:
        """All slices of this micro-batch, job by job."""
        return [each for share in self.shares for each in share.slices]

    @property
    def num_bytes(self) -> int:
        """Bytes that the model reads for this micro-batch."""
        return sum(each.num_bytes for each in self.slices)

    @property
    def num_slices(self) -> int:
        """Slices in this micro-batch."""
        return sum(len(share.slices) for share in self.shares)


def choose_micro_batch(jobs: Iterable[OpenJob], budget: Budget, credit: Credit) -> Choice:
    """Choose the next micro-batch.

    Clients of one priority take turns. Interactive jobs share no micro-batch with unpaid bulk jobs:
    all results of a micro-batch come together, so interactive jobs would wait for bulk. Bulk jobs
    must not starve either. So they earn a share of every interactive micro-batch, and what this
    credit pays for goes first in the next one. If no interactive slice fits behind that, the one
    after it begins with interactive jobs. Suspects of a crash share no micro-batch with other
    jobs.

    Args:
        jobs: open jobs that are not done, in order of arrival.
        budget: limits of one micro-batch.
        credit: as returned by the last choice.
    """
    waiting = [job for job in jobs if not job.is_done]
    filling = Filling(budget)
    if not waiting:
        return Choice([], credit)
    if waiting[0].num_crashes:
        filling.add_all(_suspects(waiting))
        return Choice(filling.shares, credit)
    trusted = [job for job in waiting if not job.num_crashes]
    bulk = [job for job in trusted if job.priority == keys.BULK]
    interactive = [job for job in trusted if job.priority != keys.BULK]
    turns = dict(credit.turns)

    def fill(priority: int, jobs: list[OpenJob]) -> None:
        quantum = quantum_bytes(budget.bytes)
        turns[priority] = fill_by_turns(filling, jobs, turns.get(priority, ClientTurns()), quantum)

    if not (bulk and interactive):
        fill(keys.BULK if bulk else keys.INTERACTIVE, trusted)
        return Choice(filling.shares, Credit(0.0, turns))
    earned_bytes = min(int(credit.bulk_bytes), budget.bytes)
    filling.max_bytes = 0 if credit.is_turn_of_interactive else earned_bytes
    fill(keys.BULK, bulk)
    num_ahead = filling.num_slices
    bulk_bytes = credit.bulk_bytes - filling.num_bytes + budget.bytes * BULK_SHARE
    filling.max_bytes = budget.bytes
    fill(keys.INTERACTIVE, interactive)
    were_passed_over = filling.num_slices == num_ahead
    bulk_bytes = min(bulk_bytes, budget.bytes)
    return Choice(filling.shares, Credit(bulk_bytes, turns, were_passed_over))


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


def _suspects(waiting: list[OpenJob]) -> list[OpenJob]:
    """Return the first job, and others that as many workers died with, as far as they go along."""
    num_crashes = waiting[0].num_crashes
    alike = [job for job in waiting if job.num_crashes == num_crashes]
    return alike[: SUSPECTS_TOGETHER if num_crashes == 1 else 1]
