"""Which of the waiting texts make the next batch: pure choice by priority and byte budget."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from contract import keys
from model.scoring.request import ScoreRequest

# Share of a full batch that bulk work earns each time interactive work goes before it.
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
    result_bytes: int = 0
    """What their results take at most."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The next batch, and what bulk work has earned for later ones."""

    slices: list[Slice]
    bulk_credit_bytes: float

    @property
    def num_bytes(self) -> int:
        """Bytes that the model reads for this batch."""
        return _num_bytes(self.slices)

    @property
    def num_texts(self) -> int:
        """Texts in this batch."""
        return sum(len(part.texts) for part in self.slices)


def choose_batch(jobs: Iterable[OpenJob], budget: Budget, bulk_credit_bytes: float) -> Choice:
    """Choose the next batch.

    Each kind goes in the order given. Interactive jobs go without bulk, whatever room is left: the
    results of a batch come together, so they would wait for the bulk in it. So that a steady
    interactive load cannot starve it, bulk earns a share of every such batch, and what is paid for
    goes first in the next; alone it needs none. Suspects of a crash share no batch with other jobs.

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
    if not (bulk and interactive):
        return Choice(_fill(trusted, budget), 0.0)
    paid: list[Slice] = []
    if bulk_credit_bytes >= _next_bytes(bulk[0]):
        paid = _fill(bulk, replace(budget, bytes=min(int(bulk_credit_bytes), budget.bytes)))
    credit = bulk_credit_bytes - _num_bytes(paid) + budget.bytes * BULK_SHARE
    return Choice(_fill(interactive, budget, paid), credit)


def _suspects(waiting: list[OpenJob], budget: Budget) -> list[Slice]:
    together = SUSPECTS_TOGETHER if waiting[0].num_crashes == 1 else 1
    alike = [job for job in waiting if job.num_crashes == waiting[0].num_crashes]
    return _fill(alike[:together], budget)


def _fill(jobs: Iterable[OpenJob], budget: Budget, begun: Sequence[Slice] = ()) -> list[Slice]:
    """Add to a batch that is begun what there is room for."""
    slices = list(begun)
    room_bytes = budget.bytes - _num_bytes(slices)
    room_texts = budget.texts - sum(len(part.texts) for part in slices)
    room_results = budget.result_bytes - sum(part.result_bytes for part in slices)
    for job in jobs:
        chosen: list[ScoreRequest] = []
        chosen_results = 0
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
            chosen_results += result_bytes
            room_texts -= 1
        if chosen:
            slices.append(Slice(job, chosen, chosen_results))
        if room_bytes <= 0 or room_texts <= 0:
            break
    return slices


def _num_bytes(slices: Iterable[Slice]) -> int:
    return sum(text.num_bytes for part in slices for text in part.texts)


def _next_bytes(job: OpenJob) -> int:
    return job.texts[len(job.outcomes)].num_bytes
