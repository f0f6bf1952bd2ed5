"""A client that sends faster than it is served does not keep other clients waiting."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.conftest import wait_until
from tests.web import WebServer

NUM_REQUESTS = 500
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
