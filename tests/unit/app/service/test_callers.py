"""Whether a client has hung up, whatever it sent before; nothing of its next request is lost."""

import socket
from contextlib import suppress

import pytest

from app.service.callers import MAX_UNREAD_BYTES, Caller
from tests.conftest import wait_until


@pytest.fixture
def pair():
    """A connection over TCP: the server's end and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    yield ours, client
    ours.close()
    client.close()


def test_request_without_a_connection_has_no_client_that_leaves():
    assert not Caller("x", {}).has_left()


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /", b"x" * (MAX_UNREAD_BYTES - 1)],
    ids=["nothing", "next request", "most of a buffer"],
)
def test_client_that_hangs_up_has_left(pair, sent):
    ours, client = pair
    caller = Caller("x", {"gunicorn.socket": ours})
    client.sendall(sent)
    assert not caller.has_left()
    client.close()
    wait_until(caller.has_left, timeout_s=5)


def test_client_that_fills_the_buffer_before_it_hangs_up_has_left(pair):
    ours, client = pair
    client.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            client.send(b"x" * 65_536)
    client.close()
    wait_until(Caller("x", {"gunicorn.socket": ours}).has_left, timeout_s=5)


def test_client_that_resets_has_left(pair):
    ours, client = pair
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    wait_until(Caller("x", {"gunicorn.socket": ours}).has_left, timeout_s=5)


def test_look_takes_nothing_and_keeps_the_time_limit(pair):
    ours, client = pair
    ours.settimeout(7)
    client.sendall(b"GET /")
    wait_until(lambda: ours.recv(5, socket.MSG_PEEK) == b"GET /")
    assert not Caller("x", {"gunicorn.socket": ours}).has_left()
    assert ours.gettimeout() == 7
    assert ours.recv(5) == b"GET /"
