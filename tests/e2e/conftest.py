"""A web tier that the tests of one module share."""

from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import RedisServer
from tests.web import Outcomes, WebServer


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
    """A client of the module's web server."""
    with web.client() as client:
        yield client


@pytest.fixture(scope="module")
def outcomes(web: WebServer) -> Iterator[Outcomes]:
    """Ends the jobs of the module's web server."""
    outcomes = Outcomes(web)
    yield outcomes
    outcomes.client.close()
