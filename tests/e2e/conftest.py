"""A web tier that the tests of one module share."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import RedisServer
from tests.service import Service
from tests.web import Outcomes, WebServer
from tests.worker_process import Worker


def assert_described(response: httpx.Response, described: dict[str, Any]) -> None:
    """An answer of a described route has a described status."""
    path = response.request.url.path
    for template, methods in described.items():
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path):
            operation = methods.get(response.request.method.lower())
            if operation is not None:
                assert str(response.status_code) in operation["responses"], path


def assert_ends_well(response: httpx.Response) -> None:
    """JSON ends in a newline, so that a prompt begins on a line of its own; a 204 has no type.

    An answer without a length is a stream, which its test reads.
    """
    media_type = response.headers.get("Content-Type")
    if response.status_code == 204:
        assert media_type is None
    is_json = media_type in ("application/json", "application/problem+json")
    if is_json and "Content-Length" in response.headers and response.request.method != "HEAD":
        assert response.read().endswith(b"\n"), response.request.url
        assert int(response.headers["Content-Length"]) == response.num_bytes_downloaded


@pytest.fixture(scope="module")
def web_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The Redis of the module's web server."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def web(web_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A running web server; no worker."""
    server = WebServer(tmp_path_factory.mktemp("web"), web_redis.url).start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def http(web: WebServer) -> Iterator[httpx.Client]:
    """A client of the module's web server.

    Every answer must be a described one that ends well.
    """
    with web.client() as client:
        described = client.get("/openapi.json").json()["paths"]
        client.event_hooks["response"] += [
            lambda response: assert_described(response, described),
            assert_ends_well,
        ]
        yield client


@pytest.fixture(scope="module")
def outcomes(web: WebServer) -> Iterator[Outcomes]:
    """Ends the jobs of the module's web server."""
    outcomes = Outcomes(web)
    yield outcomes
    outcomes.client.close()


@pytest.fixture(scope="package")
def scoring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """All of evascore with a tiny model, for tests that go through the client."""
    # As much as may be: requests of `bench` and `doctor` are not sent again.
    service = Service(tmp_path_factory.mktemp("scoring"), redis_timeout_s=5).start()
    yield service
    assert service.stop() == 0


@pytest.fixture
def new_worker(tmp_path: Path, redis_server: RedisServer) -> Iterator:
    """Makes workers on the test's Redis; all are killed at the end."""
    workers: list[Worker] = []

    def make(name: str = "w", redis_url: str = redis_server.url, **settings: str) -> Worker:
        workers.append(Worker(tmp_path, redis_url, name, **settings))
        return workers[-1]

    yield make
    for worker in workers:
        worker.stop()
