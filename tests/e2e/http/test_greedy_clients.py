"""A client that sends faster than it is served does not keep other clients waiting."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from tests.conftest import wait_until
from tests.web import WebServer

NUM_REQUESTS = 500
PIECE = 65_536
NUM_CHUNKS = 20_000
CHUNKS = b"1\r\nx\r\n" * NUM_CHUNKS + b"0\r\n\r\n"


def head(request: str, name: str, *fields: str) -> bytes:
    """The header of a request that the log shows under `name`."""
    lines = f"{request} HTTP/1.1", "Host: localhost", f"X-Request-Id: {name}", *fields
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


CHUNKED = "Transfer-Encoding: chunked"
GREEDY = {
    "requests in one go": head("GET /nowhere", "more") * NUM_REQUESTS + head("GET /", "last"),
    "a body in tiny chunks": head("POST /tokenize", "last", CHUNKED) + CHUNKS,
    # What the answer did not need is read before the next request.
    "tiny chunks that no route reads": (
        head("POST /healthz", "more", CHUNKED) + CHUNKS + head("GET /", "last")
    ),
}


@contextmanager
def standing(web: WebServer) -> Iterator[None]:
    """Stop the process that serves, so that it finds together what clients send meanwhile."""
    (worker,) = web.workers()
    worker.suspend()
    try:
        yield
    finally:
        os.kill(worker.pid, signal.SIGCONT)


def served(web: WebServer) -> list[str]:
    """The names of the requests that were served, in this order."""
    return [line["request_id"] for line in web.log_lines("request_served")]


@pytest.mark.parametrize("kind", GREEDY)
def test_others_are_served_while_a_client_sends(web, kind):
    num_before = len(served(web))
    with ExitStack() as stack:

        def connect() -> socket.socket:
            address = "127.0.0.1", web.port
            return stack.enter_context(socket.create_connection(address, timeout=20))

        before, greedy, after = connect(), connect(), connect()
        with standing(web):
            # One of the two comes behind the greedy one, in whatever order they are served.
            before.sendall(head("GET /", "before"))
            greedy.sendall(GREEDY[kind])
            after.sendall(head("GET /", "after"))
        wait_until(lambda: "last" in served(web)[num_before:])
        names = served(web)[num_before:]
        assert {"before", "after"} <= set(names[: names.index("last")]), names


NUM_CONNECTIONS = 100
NUM_QUIET = 10


def test_many_busy_connections_of_a_client_delay_others_no_more_than_a_few(web):
    """Of all requests of the one client, few are served between those of the other one."""
    num_before, address = len(served(web)), ("127.0.0.1", web.port)
    with ExitStack() as stack:
        greedy = [
            stack.enter_context(socket.create_connection(address, timeout=20))
            for _ in range(NUM_CONNECTIONS)
        ]
        quiet = socket.create_connection(address, timeout=60, source_address=("127.0.0.2", 0))
        stack.enter_context(quiet)
        with standing(web):
            for connection in greedy:
                connection.sendall(head("GET /nowhere", "more") * 100)
        wait_until(lambda: "more" in served(web)[num_before:])
        for _ in range(NUM_QUIET):
            quiet.sendall(head("HEAD /", "quiet"))
            assert quiet.recv(PIECE).startswith(b"HTTP/1.1 200")
    names = served(web)[num_before:]
    first, last = names.index("quiet"), len(names) - names[::-1].index("quiet")
    assert names[first:last].count("quiet") == NUM_QUIET
    # Without turns of clients, each connection has a turn before each of the quiet requests.
    assert names[first:last].count("more") < NUM_QUIET * NUM_CONNECTIONS / 2


def test_busy_client_behind_a_proxy_delays_no_other_on_the_connections_of_the_proxy(
    tmp_path, web_redis
):
    server = WebServer(tmp_path, web_redis.url, trusted_proxies="127.0.0.1").start()
    greedy, quiet = "X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2"
    try:
        with ExitStack() as stack:
            connections = [
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 60))
                for _ in range(NUM_CONNECTIONS)
            ]
            reused = [connections.pop() for _ in range(NUM_QUIET)]
            for connection in reused:
                connection.sendall(head("HEAD /", "earlier", greedy))
                assert connection.recv(PIECE).startswith(b"HTTP/1.1 200")
            with standing(server):
                for connection in connections:
                    connection.sendall(head("GET /nowhere", "more", greedy) * 60)
            wait_until(lambda: "more" in served(server))
            for connection in reused:
                connection.sendall(head("HEAD /", "quiet", quiet))
                assert connection.recv(PIECE).startswith(b"HTTP/1.1 200")
        names = served(server)
        first, last = names.index("quiet"), len(names) - names[::-1].index("quiet")
        # In the turn of the busy client, nearly all of its connections would come first each time.
        assert names[first:last].count("more") < NUM_QUIET * len(connections) / 2
    finally:
        server.stop()


def metric(web: WebServer, name: str) -> float:
    """The value of a metric without other labels than those in `name`."""
    # As another client: those of a test may hold all connections of 127.0.0.1.
    other = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(transport=other, timeout=20) as client:
        page = client.get(f"{web.url}/metrics").text
    return next(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))


def refusals(web: WebServer) -> list[dict[str, Any]]:
    """The lines of the log that name clients without a connection."""
    return web.log_lines("connections_refused")


def test_refused_connections_are_counted_and_logged_by_client(tmp_path, web_redis):
    server = WebServer(tmp_path, web_redis.url, web_connections=16).start()
    share = 8
    try:
        with ExitStack() as stack:
            # The last connection of the start may be open still.
            wait_until(lambda: server.num_open_connections() == 0)
            for _ in range(share):
                address = "127.0.0.1", server.port
                held = stack.enter_context(socket.create_connection(address, timeout=20))
                held.sendall(head("POST /score", "held", "Content-Length: 9"))
            wait_until(lambda: server.num_open_connections() == share)
            refused = [httpx.get(f"{server.url}/healthz", timeout=20) for _ in range(3)]
        assert [answer.json()["type"] for answer in refused] == ["overloaded"] * 3
        wait_until(lambda: server.num_open_connections() == 0)
        assert metric(server, 'evascore_http_problems_total{code="overloaded"}') == 3
        # Only the one that reads it is left.
        wait_until(lambda: metric(server, 'evascore_http_open_requests{kind="connection"}') == 1)
        wait_until(lambda: sum(line["count"] for line in refusals(server)) == 3)
        assert {line["client"] for line in refusals(server)} == {"127.0.0.1"}
    finally:
        server.stop()


def test_malformed_http_is_counted(web):
    name = 'evascore_http_problems_total{code="bad_request"}'
    before = metric(web, name)
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as client:
        client.sendall(b"NONSENSE\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 400"
    assert metric(web, name) == before + 1
