"""Which of the waiting texts make the next batch: pure choice by priority and byte budget."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from contract import keys
from model.request import ScoreRequest

# Share of a full batch that bulk work earns each time interactive work leaves it no room.
BULK_SHARE = 1 / 8
# Jobs that were aboard one dying worker are tried in small groups, after two deaths alone.
SUSPECTS_TOGETHER = 16


@dataclass(slots=True)
class OpenJob:
    """A job in the worker's hands: its texts, and the outcomes of those that are scored."""

    task_id: str
    texts: Sequence[ScoreRequest]
    deadline_at: float
    """Unix time, seconds; only for jobs of which nothing is scored yet."""
    priority: int = keys.INTERACTIVE
    num_crashes: int = 0
    """Workers that died with this job aboard."""
    result_bytes: Sequence[int] = ()
    """What the result of each text takes at most; nothing worth counting unless given."""
    outcomes: list[Any] = field(default_factory=list)
    """One per scored text, in order; the texts behind them wait."""

    @property
    def is_done(self) -> bool:
        """Whether every text has its outcome."""
        return len(self.outcomes) == len(self.texts)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the texts without outcome."""
        return sum(text.num_bytes for text in self.texts[len(self.outcomes) :])


@dataclass(frozen=True, slots=True)
class Budget:
    """What one batch may hold; a single text is always allowed."""

    bytes: int
    texts: int
    result_bytes: int
    """Results of a batch are in memory together."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Consecutive texts of one job that go into a batch."""

    job: OpenJob
    texts: Sequence[ScoreRequest]


@dataclass(frozen=True, slots=True)
class Choice:
    """The next batch, and what bulk work has earned for later ones."""

    slices: list[Slice]
    bulk_credit_bytes: float

    @property
    def num_bytes(self) -> int:
        """Bytes that the model reads for this batch."""
        return sum(text.num_bytes for part in self.slices for text in part.texts)

    @property
    def num_texts(self) -> int:
        """Texts in this batch."""
        return sum(len(part.texts) for part in self.slices)


def choose_batch(jobs: Iterable[OpenJob], budget: Budget, bulk_credit_bytes: float) -> Choice:
    """Choose the next batch.

    Interactive jobs go first, each kind in the order given; bulk takes what room is left. So that
    a steady interactive load cannot starve it, bulk earns a share of every batch that it was left
    out of, and goes first once its next text is paid for. Suspects of a crash share no batch with
    other jobs.

    Args:
        jobs: open jobs that are not done, in order of arrival.
        budget: limits of one batch.
        bulk_credit_bytes: as returned by the last choice; 0 at first.
    """
    waiting = [job for job in jobs if not job.is_done]
    if not waiting:
        return Choice([], bulk_credit_bytes)
    if waiting[0].num_crashes:
        return Choice(_suspects(waiting, budget), bulk_credit_bytes)
    trusted = [job for job in waiting if not job.num_crashes]
    bulk = [job for job in trusted if job.priority == keys.BULK]
    interactive = [job for job in trusted if job.priority != keys.BULK]
    is_bulk_due = bool(bulk and interactive) and bulk_credit_bytes >= _next_bytes(bulk[0])
    slices = _fill(bulk + interactive if is_bulk_due else interactive + bulk, budget)
    if is_bulk_due or not bulk:
        return Choice(slices, 0.0)
    if any(part.job.priority == keys.BULK for part in slices):
        return Choice(slices, bulk_credit_bytes)
    return Choice(slices, bulk_credit_bytes + budget.bytes * BULK_SHARE)


def _suspects(waiting: list[OpenJob], budget: Budget) -> list[Slice]:
    together = SUSPECTS_TOGETHER if waiting[0].num_crashes == 1 else 1
    alike = [job for job in waiting if job.num_crashes == waiting[0].num_crashes]
    return _fill(alike[:together], budget)


def _fill(jobs: Iterable[OpenJob], budget: Budget) -> list[Slice]:
    slices: list[Slice] = []
    room_bytes, room_texts, room_results = budget.bytes, budget.texts, budget.result_bytes
    for job in jobs:
        chosen: list[ScoreRequest] = []
        for index in range(len(job.outcomes), len(job.texts)):
            text = job.texts[index]
            result_bytes = job.result_bytes[index] if job.result_bytes else 0
            is_first = not slices and not chosen
            has_room = text.num_bytes <= room_bytes and result_bytes <= room_results
            if not is_first and not (has_room and room_texts > 0):
                break
            chosen.append(text)
            room_bytes -= text.num_bytes
            room_results -= result_bytes
            room_texts -= 1
        if chosen:
            slices.append(Slice(job, chosen))
        if room_bytes <= 0 or room_texts <= 0:
            break
    return slices


def _next_bytes(job: OpenJob) -> int:
    return job.texts[len(job.outcomes)].num_bytes
