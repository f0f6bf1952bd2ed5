"""A connection gives way to others, and its time limit is for clients that stall."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import pairwise

import gevent
import pytest
from gevent.event import Event
from gevent.pool import Pool
from gevent.socket import socket as gevent_socket

from app.server.connections import PIECE_BYTES, Connection, ConnectionServer
from app.service.turns import TURN_S, Rounds

Pair = tuple[Connection, gevent_socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A connection and its client."""
    first, second = socket.socketpair()
    kind = first.family, first.type, first.proto
    with (
        Connection(*kind, fileno=first.detach()) as ours,
        gevent_socket(*kind, fileno=second.detach()) as theirs,
    ):
        yield ours, theirs


def read(client: gevent_socket, num_bytes: int, pause_s: float) -> bytes:
    """All that comes, `num_bytes` at once and a pause between."""
    pieces = []
    while piece := client.recv(num_bytes):
        pieces.append(piece)
        gevent.sleep(pause_s)
    return b"".join(pieces)


def send(connection: Connection, num_bytes: int, piece_bytes: int) -> None:
    """Send an answer in pieces, as a streamed one."""
    for _ in range(num_bytes // piece_bytes):
        connection.sendall(bytes(piece_bytes))


def test_steady_client_gets_an_answer_that_takes_longer_than_the_time_limit(pair):
    ours, theirs = pair
    content = bytes(range(256)) * (64 * PIECE_BYTES // 256) + b"end"
    ours.settimeout(2)
    reading = gevent.spawn(read, theirs, PIECE_BYTES, pause_s=0.05)
    began_at = time.monotonic()
    ours.sendall(content)
    # Otherwise this test shows nothing.
    assert time.monotonic() - began_at > 2
    assert ours.gettimeout() == 2
    ours.shutdown(socket.SHUT_WR)
    assert reading.get(timeout=60) == content


@pytest.mark.parametrize("piece_bytes", [16 * PIECE_BYTES, PIECE_BYTES // 8])
@pytest.mark.parametrize("num_bytes", [0, 4000], ids=["nothing", "40 kB/s"])
def test_client_that_stalls_or_is_too_slow_is_cut_off(pair, num_bytes, piece_bytes):
    ours, theirs = pair
    # At 40 kB/s each piece alone arrives within the limit. A large buffer would hide that.
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    ours.settimeout(2)
    reading = gevent.spawn(read, theirs, num_bytes, pause_s=0.1)
    with pytest.raises(TimeoutError):
        send(ours, 16 * PIECE_BYTES, piece_bytes)
    assert ours.gettimeout() == 2
    reading.kill()


def test_each_answer_has_the_whole_time_limit(pair):
    ours, theirs = pair
    for num_bytes in (0, PIECE_BYTES):
        ours.begin_answer(2)
        reading = gevent.spawn(read, theirs, num_bytes, pause_s=0.1)
        if num_bytes:
            ours.sendall(bytes(PIECE_BYTES))
        else:
            with pytest.raises(TimeoutError):
                ours.sendall(bytes(16 * PIECE_BYTES))
        reading.kill()


@pytest.mark.parametrize(("timeout_s", "gives_way"), [(None, True), (20, True), (0, False)])
def test_reading_lets_others_run_unless_it_must_not_block(pair, timeout_s, gives_way):
    ours, theirs = pair
    theirs.sendall(b"x" * 100)
    ours.settimeout(timeout_s)
    order, turn = [], Rounds().turn_of("client")

    def work() -> None:
        ours.take_turns(turn)
        for _ in range(100):
            until = time.perf_counter() + TURN_S / 10
            while time.perf_counter() < until:
                pass
            order.append(ours.recv(1))

    gevent.joinall([gevent.spawn(work), gevent.spawn(order.append, "other")], raise_error=True)
    assert len(order) == 101
    assert (order.index("other") < 100) == gives_way


def test_flood_of_connections_is_accepted_few_at_once():
    pool, is_over, num_accepted, num_clients = Pool(), Event(), [0], 96
    after_each_poll = gevent.get_hub().loop.check(ref=False)
    after_each_poll.start(lambda: num_accepted.append(len(pool)))
    with closing(after_each_poll), gevent_socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(num_clients)
        for _ in range(num_clients):
            stack.enter_context(socket.create_connection(listener.getsockname(), timeout=20))
        server = ConnectionServer(listener, handle=lambda *_: is_over.wait(), spawn=pool)
        server.start()
        while len(pool) < num_clients:
            gevent.sleep(0.001)
        # From now on connections leave the pool.
        after_each_poll.stop()
        is_over.set()
        server.stop()
    most = max(after - before for before, after in pairwise([*num_accepted, num_clients]))
    assert most <= ConnectionServer.max_accept < num_clients
