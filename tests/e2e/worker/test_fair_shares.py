"""One client's flood does not keep another waiting: a real service, clients of two addresses."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from contract.settings import DEMO_CHECKPOINT
from tests.conftest import LIMITS, wait_until
from tests.service import Service

LONG = {"text": "All animals are equal. " * 900, "window": {"size": 4096, "stride": 256}}
ITEMS = {"items": [{"text": "All animals are equal. " * 17}] * 250, "priority": "interactive"}
SHORT = {"text": "Farewell"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("fair")
    service = Service(folder, Path(DEMO_CHECKPOINT), drain_s=1).start()
    yield service
    service.stop()


@pytest.fixture
def flooder(service: Service) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(local_address="127.0.0.2", limits=LIMITS)
    with httpx.Client(base_url=service.url, transport=transport, timeout=60) as client:
        yield client


def submit(client: httpx.Client, body: dict) -> str:
    response = client.post("/score", json=body)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def state(client: httpx.Client, task_id: str) -> str:
    return str(client.get(f"/score/{task_id}").json()["state"])


def busy_with(service: Service, flooder: httpx.Client, bodies: list[dict]) -> list[str]:
    """Submit a flood, and wait until the worker scores it.

    All of it waits before any of it is scored, however slow Redis is.
    """
    service.part("worker").suspend()
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda body: submit(flooder, body), bodies))
    before = service.num_micro_batches()
    service.part("worker").resume()
    wait_until(lambda: service.num_micro_batches() > before)
    return ids


@pytest.mark.parametrize(
    "flood",
    [[LONG] * 3, [ITEMS] * 3, [{"text": "All animals " * 33}] * 300],
    ids=["long-texts", "items", "texts"],
)
def test_newcomer_is_scored_after_at_most_two_micro_batches(service, flooder, flood):
    ids = busy_with(service, flooder, flood)
    with service.client() as newcomer:
        for _ in range(2):
            task_id = submit(newcomer, SHORT)
            before = service.num_micro_batches()
            wait_until(lambda: state(newcomer, task_id) == "SUCCESS")  # noqa: B023 - called at once
            # The one that ran, one more at most, and its own.
            assert service.num_micro_batches(before_end_of=task_id) - before <= 3
        assert state(flooder, ids[-1]) in ("QUEUED", "STARTED")
    for task_id in ids:
        flooder.delete(f"/score/{task_id}")
