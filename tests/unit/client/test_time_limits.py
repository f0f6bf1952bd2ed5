"""The time limit of a call ends it although bytes still flow, in both clients."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import httpx
import pytest

from evascore import AsyncClient, Client, ServiceUnreachable
from evascore.http.transport import CONNECT_S, WRITE_S, request_options
from evascore.operations.calls import BatchRequest
from evascore.operations.steps import Send

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4002\r\n\r\n"
# A call that does not end by its own limit ends after this time, with another error.
END_S = 30
SLOW = {"timeout_s": 0.1}


class SlowServer:
    """Takes one connection, reads all that comes, and answers one byte at a time."""

    def __init__(self, request_ends_with: bytes) -> None:
        self._request_ends_with = request_ends_with
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ends_at = time.monotonic() + END_S
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it; the client has closed its connection, or made none."""
        # Without a client, the thread still waits for one.
        with suppress(OSError):
            socket.create_connection(self._listener.getsockname()).close()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, suppress(OSError):
            last = b""
            while not last.endswith(self._request_ends_with):
                received = connection.recv(65536)
                if not received:
                    return
                last = (last + received)[-100:]
            connection.sendall(HEAD)
            for _ in range(4000):
                connection.sendall(b" ")
                time.sleep(0.02 if time.monotonic() < self._ends_at else 0)
            connection.sendall(b"{}")


def test_server_without_a_client_ends():
    server = SlowServer(b"x")
    closing_thread = threading.Thread(target=server.close, daemon=True)
    closing_thread.start()
    closing_thread.join(END_S)
    assert not closing_thread.is_alive()


def endless_body() -> Iterator[bytes]:
    """Chunks that come for longer than the time limit."""
    ends_at = time.monotonic() + END_S
    while time.monotonic() < ends_at:
        time.sleep(0.02)
        yield bytes(1024)


CALLS: dict[str, tuple[bytes, Callable[[Any], Any]]] = {
    "slow answer": (b'"x"}', lambda client: client.score("x", **SLOW)),
    "slow upload": (
        b"0\r\n\r\n",
        lambda client: client.submit_batch(BatchRequest(endless_body, {}, {}), **SLOW),
    ),
}


def run(kind: type[Client] | type[AsyncClient], url: str, call: Callable[[Any], Any]) -> None:
    """Make a call with a client of this kind."""

    async def run_async() -> None:
        async with AsyncClient(url, patience_s=0) as client:
            await call(client)

    if kind is AsyncClient:
        asyncio.run(run_async())
    else:
        with Client(url, patience_s=0) as client:
            call(client)


@pytest.mark.parametrize(("request_ends_with", "call"), CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_time_limit_of_a_call_ends_it_although_bytes_still_flow(kind, request_ends_with, call):
    with (
        closing(SlowServer(request_ends_with)) as server,
        pytest.raises(ServiceUnreachable, match="did not answer within the time limit"),
    ):
        run(kind, server.url, call)


@pytest.mark.parametrize(
    ("limit_s", "connect_s", "write_s"), [(2.5, 2.5, 2.5), (1e9, CONNECT_S, WRITE_S)]
)
def test_connecting_and_sending_take_no_longer_than_the_request_may(limit_s, connect_s, write_s):
    send = Send("GET", "/info", 30, limit_s=limit_s)
    timeout = request_options(httpx.URL("http://a.test"), send, {})["timeout"]
    assert (timeout.connect, timeout.write) == (connect_s, write_s)
