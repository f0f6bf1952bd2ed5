"""Clients that send or take slowly: each is cut off in time, and the others are served."""

import socket
import time

import pytest

from app.server.gunicorn_worker import HEADER_S
from tests.web import Outcomes, WebServer

THREADS, TIMEOUT_S = 4, 3


@pytest.fixture(scope="module")
def web(web_redis, tmp_path_factory):
    """A server with one place for a waiter, an upload and a stream each."""
    times = {"web_timeout_s": TIMEOUT_S, "max_wait_s": 1}
    folder = tmp_path_factory.mktemp("web")
    server = WebServer(folder, web_redis.url, web_threads=THREADS, **times).start()
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


def connected(web: WebServer, num_clients: int, request: bytes) -> list[socket.socket]:
    """Clients that send `request` and nothing more, and read nothing."""
    clients = []
    for _ in range(num_clients):
        client = socket.create_connection(("127.0.0.1", web.port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(request)
        clients.append(client)
    return clients


def assert_served_within(http, seconds: float) -> None:
    began_at = time.monotonic()
    assert http.get("/healthz").status_code == 200
    assert time.monotonic() - began_at < seconds


def close(clients: list[socket.socket]) -> None:
    for client in clients:
        client.close()


def test_clients_that_say_nothing_hold_no_thread(http, web):
    clients = connected(web, 150, b"")
    assert_served_within(http, 2)
    close(clients)


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"text/plain\r\nContent-Length: 9\r\n\r\nx",
        b"text/plain\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nx",
    ],
    ids=["header", "body", "chunk"],
)
def test_clients_that_stall_are_cut_off(http, web, rest):
    clients = connected(web, THREADS, b"POST /score HTTP/1.1\r\nContent-Type: " + rest)
    assert_served_within(http, TIMEOUT_S + 3)
    close(clients)


def test_clients_that_do_not_take_their_answer_are_cut_off(http, web):
    task_id = http.post("/score", json={"text": "x"}).json()["id"]
    outcomes = Outcomes(web)
    outcomes.succeed(task_id, {"large": "x" * 20_000_000})
    outcomes.client.close()
    clients = connected(
        web, THREADS, f"GET /score/{task_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    )
    assert_served_within(http, TIMEOUT_S + 3)
    close(clients)


def test_stalled_header_is_cut_off_before_the_time_of_a_whole_request(web_redis, tmp_path):
    server = WebServer(tmp_path, web_redis.url).start()
    try:
        (client,) = connected(server, 1, b"POST /score HTTP/1.1\r\nHost: ")
        client.settimeout(HEADER_S + 4)
        assert client.recv(1) == b""
        client.close()
    finally:
        server.stop()
