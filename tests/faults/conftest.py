"""A running evascore whose parts may be killed, and a check that no text of a user is logged."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import HANG_S
from tests.patient_client import PatientClient
from tests.service import Service

MARKER = "Xylographenkrähe"
"""A word in every text that the tests send; it must never be logged."""

RECOVERY_S = HANG_S
"""Within this all goes on after a kill: 10 s on a quiet machine, where loading torch takes 3. On a
busy machine that alone may take a minute; `make storm` asks for 10 s."""


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with default settings and the tiny model; each test leaves it working."""
    service = Service(tmp_path_factory.mktemp("service")).start()
    yield service
    end(service)


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start a service of the test's own, with further settings."""
    services: list[Service] = []

    def start(**settings: int) -> Service:
        services.append(Service(tmp_path, **settings))
        return services[-1].start()

    yield start
    for service in services:
        end(service)


@pytest.fixture
def client(service: Service) -> Iterator[PatientClient]:
    """A client of `service`."""
    with PatientClient(service.url) as client:
        yield client


def end(service: Service) -> None:
    """Stop a service; its log holds no text of a user and no traceback."""
    service.stop()
    log = service.log.read_text()
    assert not contains_marker(log)
    _, _, traceback = log.partition("Traceback")
    assert not traceback, traceback[:3000]


def contains_marker(text: str) -> bool:
    """Whether `text` shows the marker, in whatever form its one letter beyond ASCII takes."""
    return MARKER.partition("ä")[0] in text
