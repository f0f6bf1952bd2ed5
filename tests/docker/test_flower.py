"""The profile `flower`: Celery's own view of the worker, for the eyes of this machine alone."""

from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import wait_until
from tests.docker.conftest import inspect, output


@pytest.fixture(scope="module")
def flower(stack) -> Iterator[httpx.Client]:
    """A client of Flower beside the service."""
    with (
        stack.profile("flower", "flower"),
        httpx.Client(base_url=f"http://127.0.0.1:{stack.flower_port}", timeout=30) as client,
    ):
        yield client


def test_worker_is_shown(flower, stack):
    with stack.client() as client:
        (worker,) = client.get("/stats").json()["workers"]
    # It learns of a worker by its heartbeat, two seconds apart.
    wait_until(
        lambda: worker["name"] in {shown["hostname"] for shown in _workers(flower)},
        timeout_s=30,
        every_s=0.5,
    )


def _workers(flower: httpx.Client) -> list[dict]:
    return flower.get("/workers", params={"json": 1}).json()["data"]


def test_nobody_can_stop_a_worker_through_it(flower, stack):
    with stack.client() as client:
        (worker,) = client.get("/stats").json()["workers"]
    assert flower.post(f"/api/worker/shutdown/{worker['name']}").status_code == 401
    assert stack.submit()["state"] == "SUCCESS"


def test_password_is_in_no_environment_and_no_command(flower, stack):
    password = stack.run_in("redis", "cat", "/var/lib/evascore/redis_password")
    container = stack.container("flower")
    assert password not in str(inspect(container))
    assert password not in output("docker", "top", container, "-o", "pid,args")
    assert password not in stack.logs("flower")
