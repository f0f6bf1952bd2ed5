"""Defines the interfaces to Redis and Celery that the scoring loop uses; it imports neither."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from contract.store.jobs.opening import Opened
from contract.store.queue.dead_letters import Kind
from worker.process.suspects import Crashes


class Store(Protocol):
    """What the loop needs of `JobStore`."""

    def open_jobs(self, task_ids: Sequence[str], worker: str, fingerprint: str) -> list[Opened]:
        """Read jobs and mark them as started; they are the suspects should the worker die.

        Raises:
            NotStored: Redis does not take the marks.
        """

    def facts(self, task_id: str) -> dict[str, Any]:
        """Return what is known of a job without its payload."""

    def set_aside(
        self, kind: Kind, reason: str, *, task_id: str, num_bytes: int, raw: bytes
    ) -> None:
        """Keep what cannot be read as a dead letter."""

    def park(self, task_id: str, major: int, worker: str) -> None:
        """Have a job wait for a worker of a newer release."""

    def pass_on(self, task_id: str, fingerprint: str, worker: str) -> None:
        """Put the message of a job into the queue of the model that it is bound to."""

    def are_wanted(self, task_ids: Sequence[str]) -> list[bool]:
        """Tell which jobs were not cancelled or erased."""

    def has_passed(self, moment: float) -> bool:
        """Whether a moment in Unix seconds has passed by the clock of Redis."""

    def note_aboard(self, task_ids: Iterable[str], worker: str) -> None:
        """Note whose jobs are suspects should the worker die."""

    def give_up(self, task_id: str, worker: str) -> None:
        """Delete a job that cannot be opened or ended, and its message."""


class Messages(Protocol):
    """What the loop needs of Celery: the messages of the jobs in hand."""

    def is_revoked(self, task_id: str) -> bool:
        """Tell whether the task was revoked through Celery."""

    def is_express(self, task_id: str) -> bool:
        """Tell whether the job goes first: its client had no other live job, or it was put back."""

    def crashes(self, task_id: str) -> Crashes:
        """Return how many workers died while they scored the job."""

    def acknowledge(self, task_id: str, *, is_success: bool) -> None:
        """Drop the message of a job that has ended."""
