"""Reads the state of the whole service from Redis: queue, batches, workers, files.

It takes two round trips, so that `/metrics` and `/stats` answer while Redis is slow.
"""

from dataclasses import dataclass

import redis

from contract.settings import Settings
from contract.store.admission.bulk_load import BulkLoad, ask_load
from contract.store.admission.outcomes import QueueDepth
from contract.store.connection.broker_guard import BrokerGuard
from contract.store.connection.persistence import Persistence, ask_persistence
from contract.store.connection.readings import note_time, read_together
from contract.store.connection.refusals import ask_writable
from contract.store.jobs.counts import ask_depth, ask_totals
from contract.store.queue.dead_letters import DeadLetter, ask_letters
from contract.store.queue.leases import ask_lost, ask_statuses
from contract.store.queue.model_registry import ModelQueue, ask_model_drifted, ask_queues
from contract.store.queue.parked_jobs import ask_parked
from contract.worker_status import WorkerStatus


@dataclass(frozen=True, slots=True)
class Overview:
    """The state of the service at one moment."""

    depth: QueueDepth
    """Accepted jobs that have not ended."""
    totals: dict[str, int]
    """Counters since the data folder was made."""
    bulk: BulkLoad
    workers: list[WorkerStatus]
    """Those that hold a lease, by name."""
    lost_workers: list[str]
    """Names of those that ended or lost Redis without giving their lease back."""
    num_parked: int
    """Jobs that wait for a worker of a newer release."""
    letters: list[DeadLetter]
    """What could not be read and was set aside, oldest first."""
    queues: list[ModelQueue]
    """What waits for each model."""
    persistence: Persistence
    is_writable: bool
    """Whether Redis takes writes."""
    has_model_drifted: bool
    """Whether a worker stopped because of its model and no worker became ready since."""


class OverviewReader:
    """Reads overviews; safe to share between threads."""

    def __init__(self, client: redis.Redis, settings: Settings, guard: BrokerGuard) -> None:
        self._client, self._settings, self._guard = client, settings, guard

    def read(self) -> Overview:
        """The state now. Raises: BrokerUnavailable."""
        with self._guard.calling():
            found = read_together(
                self._client,
                ask_depth(),
                ask_totals(),
                ask_load(self._settings),
                ask_statuses(),
                ask_lost(),
                ask_parked(),
                ask_letters(),
                ask_queues(),
                ask_persistence(),
                ask_writable(),
                ask_model_drifted(),
                note_time(),
            )
        return Overview(*found[:-1])
