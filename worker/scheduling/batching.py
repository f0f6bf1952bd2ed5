"""Chooses the slices of the next micro-batch by priority and budget, without any side effect.

A slice is a piece of a job in a micro-batch. Most texts are one slice, long ones are several.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from contract import keys
from model import Slice
from worker.scheduling.filling import Budget, Filling, OpenJob, Share
from worker.scheduling.long_jobs import without_held_back
from worker.scheduling.turns import ClientTurns, fill_by_turns, quantum_bytes

# Bulk work earns this share of a full micro-batch whenever interactive work goes before it.
BULK_SHARE = 1 / 8
# Jobs that were in the last micro-batch of one dead worker are tried in small groups. A job that
# two dead workers had is tried alone.
SUSPECTS_TOGETHER = 16


class Ahead(Enum):
    """What may go before express jobs, in every second micro-batch at most; they take turns."""

    SUSPECTS = auto()
    """Suspects of a crash, which share no micro-batch with other jobs."""
    BULK = auto()
    """Bulk work that is paid for."""
    PASSED_OVER = auto()
    """Jobs that express jobs left no room for."""


@dataclass(frozen=True, slots=True)
class Credit:
    """What earlier micro-batches leave to the next one; the first one has the default."""

    bulk_bytes: float = 0.0
    """What bulk work has earned while interactive work went before it."""
    turns: Mapping[int, ClientTurns] = field(default_factory=dict)
    """Whose turn it is, by priority."""
    is_turn_of_express: bool = False
    """Whether something went before express jobs in the last one, so that they are first now."""
    order: tuple[Ahead, ...] = tuple(Ahead)
    """Who goes before express jobs next, if it has work."""

    def after(self, ahead: Ahead | None) -> "Credit":
        """Return what a micro-batch with `ahead` before express jobs leaves to the next one."""
        if ahead is None:
            return replace(self, is_turn_of_express=False)
        order = *(each for each in self.order if each is not ahead), ahead
        return replace(self, is_turn_of_express=True, order=order)


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
    credit pays for goes first in a later one. Suspects of a crash share no micro-batch with other
    jobs. Such work goes before express jobs in every second micro-batch at most.

    Args:
        jobs: open jobs that are not done, in order of arrival.
        budget: limits of one micro-batch.
        credit: as returned by the last choice.
    """
    waiting = without_held_back([job for job in jobs if not job.is_done], budget)
    filling = Filling(budget)
    if not waiting:
        return Choice([], credit)
    trusted = [job for job in waiting if not job.num_crashes]
    bulk = [job for job in trusted if job.priority == keys.BULK]
    interactive = [job for job in trusted if job.priority != keys.BULK]
    ahead = _whose_turn(waiting, credit, budget)
    credit = credit.after(ahead)
    if ahead is Ahead.SUSPECTS:
        filling.add_all(_suspects(waiting))
        return Choice(filling.shares, credit)
    turns = dict(credit.turns)

    def fill(priority: int, jobs: list[OpenJob]) -> None:
        before = turns.get(priority, ClientTurns())
        before = replace(
            before, were_passed_over=before.were_passed_over and ahead is Ahead.PASSED_OVER
        )
        turns[priority] = fill_by_turns(filling, jobs, before, quantum_bytes(budget.bytes))

    if not (bulk and interactive):
        fill(keys.BULK if bulk else keys.INTERACTIVE, trusted)
        return Choice(filling.shares, replace(credit, bulk_bytes=0.0, turns=turns))
    bulk_bytes = credit.bulk_bytes + budget.bytes * BULK_SHARE
    if ahead is Ahead.BULK:
        filling.max_bytes = min(int(credit.bulk_bytes), budget.bytes)
        fill(keys.BULK, bulk)
        bulk_bytes -= filling.num_bytes
        filling.max_bytes = budget.bytes
    fill(keys.INTERACTIVE, interactive)
    bulk_bytes = min(bulk_bytes, budget.bytes)
    return Choice(filling.shares, replace(credit, bulk_bytes=bulk_bytes, turns=turns))


def _whose_turn(waiting: Collection[OpenJob], credit: Credit, budget: Budget) -> Ahead | None:
    """Return what goes before express jobs in the next micro-batch; None if nothing does."""
    trusted = [job for job in waiting if not job.num_crashes]
    if not trusted:
        return Ahead.SUSPECTS
    if credit.is_turn_of_express:
        return None
    priorities = {job.priority for job in trusted}
    bulk = [job for job in trusted if job.priority == keys.BULK]
    has_work = {
        Ahead.SUSPECTS: any(job.num_crashes for job in waiting),
        Ahead.BULK: len(priorities) > 1 and _is_any_paid(bulk, credit, budget),
        Ahead.PASSED_OVER: any(
            priority in priorities and turns.were_passed_over
            for priority, turns in credit.turns.items()
        ),
    }
    return next((each for each in credit.order if has_work[each]), None)


def _is_any_paid(bulk: Collection[OpenJob], credit: Credit, budget: Budget) -> bool:
    """Return whether the credit pays for the next slice of any of these jobs.

    A slice that found no room before is waited for, until there is enough credit. The credit of a
    whole micro-batch pays for any slice.
    """
    blocked = credit.turns.get(keys.BULK, ClientTurns()).without_room
    first = [job for job in bulk if job.client in blocked[:1]]
    candidates = [min(first, key=lambda job: job.last_micro_batch)] if first else bulk
    return any(
        min(job.slices[len(job.outcomes)].num_bytes, budget.bytes) <= credit.bulk_bytes
        for job in candidates
    )


def choose_to_open(num_crashes: Mapping[str, int], in_hand: Collection[OpenJob]) -> list[list[str]]:
    """Return the fetched jobs to open now, in groups that are opened one after the other.

    A job that kills workers may do so when it is opened. So suspects are opened apart from all
    other jobs, and no further ones while some are in hand.

    Args:
        num_crashes: of each fetched job, in order, the workers that died with it.
        in_hand: open jobs that are not done.
    """
    trusted = [task_id for task_id, crashes in num_crashes.items() if not crashes]
    suspects = {task_id: crashes for task_id, crashes in num_crashes.items() if crashes}
    if any(job.num_crashes for job in in_hand):
        suspects = {}
    first = next(iter(suspects.values()), 0)
    alike = [task_id for task_id, crashes in suspects.items() if crashes == first]
    groups = trusted, alike[: _num_together(first)]
    return [group for group in groups if group]


def _suspects(waiting: list[OpenJob]) -> list[OpenJob]:
    """Return the suspects of the next micro-batch; a long one yields to others after its slice."""
    suspects = sorted(
        (job for job in waiting if job.num_crashes), key=lambda job: job.last_micro_batch
    )
    num_crashes = suspects[0].num_crashes
    alike = [job for job in suspects if job.num_crashes == num_crashes]
    return alike[: _num_together(num_crashes)]


def _num_together(num_crashes: int) -> int:
    return SUSPECTS_TOGETHER if num_crashes == 1 else 1
