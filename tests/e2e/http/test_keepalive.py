"""Idle connections are kept for the next request, and give way if connections run short."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from app.server.header_timeout import HEADER_S
from tests.conftest import wait_until
from tests.web import WebServer

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
ANSWER_END = b'{"status":"ok"}\n'
KEEPALIVE_S = HEADER_S + 3


@pytest.fixture(scope="module")
def web(web_redis, tmp_path_factory) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("keepalive")
    settings = {"keepalive_s": KEEPALIVE_S, "web_connections": 16}
    server = WebServer(folder, web_redis.url, **settings).start()
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


@pytest.fixture(scope="module")
def patient(web_redis, tmp_path_factory) -> Iterator[WebServer]:
    """A server with 16 places that keeps idle connections for long."""
    folder = tmp_path_factory.mktemp("patient")
    server = WebServer(folder, web_redis.url, web_connections=16).start()
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


def connect(web: WebServer, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(
        ("127.0.0.1", web.port), timeout=20, source_address=(address, 0)
    )


def is_open(client: socket.socket) -> bool:
    """Whether the server has not closed the connection."""
    client.setblocking(False)
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    finally:
        client.settimeout(20)


def ask(client: socket.socket) -> None:
    """Send a request, and read its answer."""
    client.sendall(HEALTHZ)
    answer = b""
    while not answer.endswith(ANSWER_END):
        received = client.recv(1000)
        assert received, "the connection was closed"
        answer += received
    assert answer.startswith(b"HTTP/1.1 200")


def test_connection_is_kept_longer_than_clients_keep_theirs_and_then_closed(web):
    with connect(web) as client:
        ask(client)
        # httpx reuses a connection for up to 5 s, so the server must keep it longer.
        time.sleep(HEADER_S + 0.5)
        ask(client)
        began_at = time.monotonic()
        assert client.recv(1) == b""
        assert time.monotonic() - began_at > HEADER_S + 0.5


def test_idle_connections_leave_their_place_to_new_ones(web):
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(web)) for _ in range(4)]
        for client in clients:
            ask(client)
        # Four times the share of one client; none of them closes its connection.
        for _ in range(32):
            ask(stack.enter_context(connect(web)))
        # Those that were idle for the longest time are closed already, and not later for their age.
        assert not any(map(is_open, clients))


@pytest.mark.parametrize(
    ("addresses", "newcomer", "num_kept"),
    # Two clients hold all places; one client holds its share. An eighth of it is free at least.
    [(("127.0.0.2", "127.0.0.3"), "127.0.0.4", 13), (("127.0.0.5",), "127.0.0.5", 6)],
)
def test_burst_of_connections_that_become_idle_leaves_places(
    patient, addresses, newcomer, num_kept
):
    with ExitStack() as stack:
        # All are open before the first one is idle.
        burst = [stack.enter_context(connect(patient, each)) for each in addresses * 8]
        wait_until(lambda: patient.num_open_connections() >= len(burst))
        for client in burst:
            ask(client)
        ask(stack.enter_context(connect(patient, newcomer)))
        # Not more of them are closed than newcomers need.
        assert num_kept <= sum(map(is_open, burst)) < len(burst)


def test_requests_that_are_sent_together_are_answered_in_turn(web):
    with connect(web) as client:
        client.sendall(HEALTHZ * 3)
        answers = b""
        while answers.count(ANSWER_END) < 3:
            received = client.recv(4000)
            assert received
            answers += received
