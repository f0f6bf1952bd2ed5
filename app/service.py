"""The parts that the routes share; made once per process by the factory."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import current_app

from app.admission import Capacity
from app.broker_guard import BrokerGuard
from app.pace import Pace
from app.places import Places
from app.waiting import JobEndings
from contract.batch_store import BatchStore
from contract.job_store import JobStore
from contract.settings import Settings

if TYPE_CHECKING:
    # Its route asks for the service in turn.
    from app.metrics import Metrics

EXTENSION = "evascore"


@dataclass(frozen=True, slots=True)
class Service:
    """What a route works with."""

    settings: Settings
    store: JobStore
    guard: BrokerGuard
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
