"""The parts that the routes share; made once per process by the factory."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import current_app

from app.service.progress import Pace
from app.service.retry_after import Capacity
from app.service.slots import Places
from app.service.waiting import JobEndings
from contract.settings import Settings
from contract.store.batch_store import BatchStore
from contract.store.job_store import JobStore

if TYPE_CHECKING:
    # Its route asks for the service in turn.
    from app.service.prometheus import Metrics

EXTENSION = "evascore"


@dataclass(frozen=True, slots=True)
class Service:
    """What a route works with."""

    settings: Settings
    store: JobStore
    capacity: Capacity
    endings: JobEndings
    metrics: "Metrics"
    batches: BatchStore
    pace: Pace
    uploads: Places
    streams: Places


def service() -> Service:
    """The parts of the application that serves the current request."""
    found = current_app.extensions[EXTENSION]
    assert isinstance(found, Service)
    return found
