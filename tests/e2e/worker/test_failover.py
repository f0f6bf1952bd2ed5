"""A failover of Redis that leaves connections to the old master open, as those of some hosts do."""

import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import redis

from tests.conftest import RedisServer, wait_until
from tests.proxy import Proxy
from tests.web import WebServer

# It takes seconds; without the change of server it would take for ever.
RECOVERY_S = 90


@pytest.fixture
def replica(tmp_path: Path, redis_server: RedisServer) -> Iterator[RedisServer]:
    """A replica of the test's Redis."""
    folder = tmp_path / "replica"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", redis_server.port)
        wait_until(lambda: client.info("replication")["master_link_status"] == "up")
    yield server
    server.kill()


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """The address of the master."""
    proxy = Proxy(redis_server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def fail_over(redis_server: RedisServer, replica: RedisServer, proxy: Proxy) -> Callable[[], None]:
    """Exchange master and replica. New connections lead to the new master, open ones stay."""

    def run() -> None:
        with (
            redis.Redis.from_url(redis_server.url) as old,
            redis.Redis.from_url(replica.url) as new,
        ):
            old.client_pause(60_000, all=False)
            assert old.wait(1, 60_000) == 1
            new.replicaof("NO", "ONE")
            old.replicaof("127.0.0.1", replica.port)
            proxy.redirect(replica.port)
            old.client_unpause()

    return run


def test_web_server_and_worker_find_the_new_master(proxy, fail_over, new_worker, tmp_path):
    worker = new_worker(redis_url=proxy.url, lease_s="5").start().wait_ready()
    server = WebServer(tmp_path, proxy.url).start()
    try:
        with server.client() as http:
            text = {"text": "before"}
            assert http.post("/score", params={"wait": 60}, json=text).json()["state"] == "SUCCESS"
            worker.send(signal.SIGSTOP)
            waiting = http.post("/score", json=text).json()["links"]["self"]
            fail_over()
            worker.send(signal.SIGCONT)
            accepted = wait_until(lambda: accept(http, text), RECOVERY_S)
            for path in (waiting, accepted):
                wait_until(partial(is_scored, http, path), RECOVERY_S)
            wait_until(lambda: http.get("/readyz").status_code == 200, RECOVERY_S)
    finally:
        server.stop()


def accept(http: httpx.Client, text: dict[str, str]) -> str | None:
    """Submit a text; the path of its job, None if it was refused."""
    answer = http.post("/score", json=text)
    return answer.json()["links"]["self"] if answer.status_code == 202 else None


def is_scored(http: httpx.Client, path: str) -> bool:
    return http.get(path).json().get("state") == "SUCCESS"
