"""Estimates when a client should try again, from the queued bytes and the workers' speed."""

import time
from dataclasses import dataclass

from contract.errors import BrokerUnavailable, Overloaded
from contract.settings import Settings
from contract.store.admission import QueueDepth
from contract.store.job_store import JobStore

MIN_RETRY_S, MAX_RETRY_S = 1, 30
# The speed is unknown before the first micro-batch.
UNMEASURED_RETRY_S = 5
STATUS_MAX_AGE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Measured:
    bytes_per_s: float | None = None
    until: float = 0.0
    """Monotonic time, seconds, after which the workers are asked again."""


class RetryEstimate:
    """The time to score what is queued; asks for the workers' speed at most once a second."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self._measured = _Measured()

    def retry_after_s(self, queued_bytes: int) -> int:
        """Whole seconds until `queued_bytes` are scored, clamped to 1..30."""
        bytes_per_s = self._bytes_per_s()
        if bytes_per_s is None:
            return UNMEASURED_RETRY_S
        return round(min(max(queued_bytes / bytes_per_s, MIN_RETRY_S), MAX_RETRY_S))

    def queue_full(self, depth: QueueDepth, settings: Settings) -> Overloaded:
        """The error for a job that the queue has no room for."""
        return Overloaded(
            "The queue is full; try again after Retry-After seconds.",
            queued_bytes=depth.bytes,
            max_queued_bytes=settings.max_queued_bytes,
            queued_jobs=depth.jobs,
            max_queued_jobs=settings.max_queued_jobs,
            retry_after_s=self.retry_after_s(depth.bytes),
        )

    def _bytes_per_s(self) -> float | None:
        now = time.monotonic()
        if now > self._measured.until:
            # The answer that carries the estimate must not fail because of it.
            try:
                speeds = [each.bytes_per_s or 0 for each in self._jobs.worker_statuses()]
            except BrokerUnavailable:
                speeds = []
            self._measured = _Measured(sum(speeds) or None, now + STATUS_MAX_AGE_S)
        return self._measured.bytes_per_s
