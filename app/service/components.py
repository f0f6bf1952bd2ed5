"""Holds the components that the routes share; the factory makes them once per process."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import current_app

from app.service.body_memory import BodyMemory
from app.service.key_ring import KeyRing
from app.service.metrics.registry import Metrics
from app.service.recent_workers import RecentWorkers
from app.service.retry_after import RetryEstimate
from app.service.served_models import ServedModels
from app.service.slots import ConnectionSlots
from app.service.turns import LargeWork
from app.service.waiting import ChangeListener
from contract.settings import Settings
from contract.store.batches.batch_store import BatchStore
from contract.store.batches.file_store import FileStore
from contract.store.jobs.job_store import JobStore
from contract.store.overview import OverviewReader

if TYPE_CHECKING:
    from contract.otel import Tracing

EXTENSION = "evascore"


@dataclass(frozen=True, slots=True)
class Service:
    """The components of one application."""

    settings: Settings
    jobs: JobStore
    batches: BatchStore
    files: FileStore
    overview: OverviewReader
    changes: ChangeListener
    workers: RecentWorkers
    models: ServedModels
    key_ring: KeyRing
    retry: RetryEstimate
    metrics: Metrics
    uploads: ConnectionSlots
    streams: ConnectionSlots
    bodies: BodyMemory
    answers: BodyMemory
    large_work: LargeWork
    tracing: "Tracing | None" = None
    """Makes the spans of requests; None where traces are off."""


def service() -> Service:
    """The components of the application that serves the current request."""
    found = current_app.extensions[EXTENSION]
    assert isinstance(found, Service)
    return found
