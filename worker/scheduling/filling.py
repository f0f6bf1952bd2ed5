"""Fills a micro-batch with slices up to its budget, and remembers which job each comes from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from contract import keys
from contract.errors import ServiceError
from contract.settings import Settings
from model import Slice, SliceScores

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
    client: str = ""
    """Who sent it; clients take turns."""
    is_express: bool = False
    """Whether it goes first: its client had no other live job, or it was put back in the queue."""
    num_crashes: int = 0
    """Workers that died while they scored this job."""
    result_bytes: Sequence[int] = ()
    """Upper bound of the result of each slice; without bounds the results count as 0 bytes."""
    outcomes: list[Outcome] = field(default_factory=list)
    """One per scored slice, in order; the slices behind them wait."""
    last_micro_batch: int = 0
    """Number of the last one with a slice of this job, or of the last one when it was opened."""
    num_bytes: int = field(init=False)
    """Bytes of all its slices."""
    max_result_bytes: int = field(init=False)
    """Upper bound of the results of all its slices."""

    def __post_init__(self) -> None:
        """Add up the slices once; windows make this slow."""
        self.num_bytes = sum(each.num_bytes for each in self.slices)
        self.max_result_bytes = sum(self.result_bytes)

    @property
    def is_done(self) -> bool:
        """Whether every slice has its outcome."""
        return len(self.outcomes) == len(self.slices)

    @property
    def goes_first(self) -> bool:
        """Whether it is an express job without a scored slice."""
        return self.is_express and not self.outcomes

    @property
    def outcome_bytes(self) -> int:
        """About the bytes of its results so far: each slice counts as much as the others."""
        return self.max_result_bytes * len(self.outcomes) // max(len(self.slices), 1)

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

    @classmethod
    def of(cls, settings: Settings) -> "Budget":
        """Return the limits that the settings name."""
        return cls(
            settings.micro_batch_bytes, settings.micro_batch_texts, settings.max_result_bytes
        )


class Share(NamedTuple):
    """The consecutive slices of one job that go into a micro-batch."""

    job: OpenJob
    slices: list[Slice]


class Filling:
    """A micro-batch while its slices are chosen."""

    def __init__(self, budget: Budget) -> None:
        """Begin without slices."""
        self.max_bytes = budget.bytes
        """May be set lower for a while."""
        self._budget = budget
        self._shares: dict[str, Share] = {}
        self.num_bytes = self.num_slices = self._result_bytes = 0

    @property
    def shares(self) -> list[Share]:
        """The chosen slices, job by job."""
        return list(self._shares.values())

    @property
    def is_full(self) -> bool:
        """Whether no slice fits any more."""
        has_slices = self.num_slices < self._budget.slices
        return bool(self.num_slices) and not (self.num_bytes < self.max_bytes and has_slices)

    def next_slice(self, job: OpenJob) -> Slice | None:
        """The first slice of the job that is neither scored nor chosen."""
        index = self._next_index(job)
        return job.slices[index] if index < len(job.slices) else None

    def has_room_for(self, job: OpenJob) -> bool:
        """Whether the next slice fits; every slice fits into an empty one with its whole budget."""
        num_bytes, result_bytes = self._next_size(job)
        if not self.num_slices:
            return num_bytes <= self.max_bytes or self.max_bytes >= self._budget.bytes
        return (
            self.num_bytes + num_bytes <= self.max_bytes
            and self.num_slices < self._budget.slices
            and self._result_bytes + result_bytes <= self._budget.result_bytes
        )

    def add(self, job: OpenJob) -> None:
        """Choose the next slice of the job."""
        num_bytes, result_bytes = self._next_size(job)
        chosen = job.slices[self._next_index(job)]
        self._shares.setdefault(job.task_id, Share(job, [])).slices.append(chosen)
        self.num_bytes += num_bytes
        self.num_slices += 1
        self._result_bytes += result_bytes

    def add_all(self, jobs: Iterable[OpenJob], max_bytes_each: int | None = None) -> None:
        """Choose the slices of each job in order that fit, up to about `max_bytes_each`."""
        for job in jobs:
            before = self.num_bytes
            while self.next_slice(job) is not None and self.has_room_for(job):
                self.add(job)
                if max_bytes_each is not None and self.num_bytes - before >= max_bytes_each:
                    break
            if self.is_full:
                return

    def _next_index(self, job: OpenJob) -> int:
        chosen = self._shares.get(job.task_id)
        return len(job.outcomes) + (len(chosen.slices) if chosen else 0)

    def _next_size(self, job: OpenJob) -> tuple[int, int]:
        index = self._next_index(job)
        return job.slices[index].num_bytes, job.result_bytes[index] if job.result_bytes else 0
