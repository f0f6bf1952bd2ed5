"""Accepts connections, and lets other clients run when the turn of a client is over.

One thread serves all connections. A `recv` that finds bytes returns without giving way to others.
So a client that sends faster than it is served, or has many connections, would keep all others
waiting.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gevent.server import StreamServer
from gevent.socket import socket

from app.requests.upload_stream import MIN_BYTES_PER_S
from app.service.turns import Turn

# A large answer is sent in pieces of this size; the bytes of each give time back.
PIECE_BYTES = 64 * 1024


class Connection(socket):
    """A socket of gevent that gives way to others, and whose time limit is for stalls."""

    __slots__ = ("_left_bytes", "_stalled_s", "_too_much", "_turn")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turn: Turn | None = None
        self._stalled_s = 0.0
        self._left_bytes = math.inf
        self._too_much: Exception | None = None

    @contextmanager
    def receiving_at_most(self, num_bytes: int, error: Exception) -> Iterator[None]:
        """Raise `error` when more than `num_bytes` are received."""
        self._left_bytes, self._too_much = num_bytes, error
        try:
            yield
        finally:
            self._left_bytes, self._too_much = math.inf, None

    def recv(self, *args: Any) -> bytes:
        """Receive as `socket.recv` does, after giving way if that is due.

        A call that must not block does not give way either.
        """
        if self.timeout != 0:
            self.give_way()
        received: bytes = super().recv(*args)
        self._left_bytes -= len(received)
        if self._left_bytes < 0 and self._too_much is not None:
            raise self._too_much
        return received

    def sendall(self, content: bytes, flags: int = 0) -> None:
        """Send all of `content`; a client may take any time that keeps to the least speed.

        The time limit of `socket.sendall` would hold for the whole of a large answer, and begin
        again with each piece of a streamed one.

        Raises:
            TimeoutError: since `begin_answer`, the client stalled for the time limit of this socket
                in all. Each `MIN_BYTES_PER_S` that are sent give a second back.
        """
        if self.timeout is None:
            super().sendall(content, flags)
        elif len(content) <= PIECE_BYTES:
            self._send_piece(content, flags, self.timeout)
        else:
            for piece in _cut(memoryview(content)):
                self._send_piece(piece, flags, self.timeout)
                self.give_way()

    def begin_answer(self, limit_s: float) -> None:
        """Set the time limit of the next answer; the client has the whole of it again."""
        self.settimeout(limit_s)
        self._stalled_s = 0.0

    def _send_piece(self, piece: bytes | memoryview, flags: int, limit_s: float) -> None:
        began_at, sent_bytes = time.monotonic(), 0
        self.settimeout(limit_s - self._stalled_s)
        try:
            super().sendall(piece, flags)
            sent_bytes = len(piece)
        finally:
            self.settimeout(limit_s)
            # Not above the limit, even if this process stood still.
            stalled_s = min(self._stalled_s + time.monotonic() - began_at, limit_s)
            self._stalled_s = max(stalled_s - sent_bytes / MIN_BYTES_PER_S, 0)

    def take_turns(self, turn: Turn) -> None:
        """Share `turn` with the other connections of the client, in this greenlet."""
        self._turn = turn
        turn.join()

    def leave_turns(self) -> None:
        """Do not give way until the next `take_turns`."""
        self._turn = None

    def give_way(self) -> None:
        """Let others run if the turn of the client is over."""
        if self._turn is not None:
            self._turn.give_way()

    def _wait(self, *args: Any) -> None:
        """Wait as `socket` does until the client sends or takes bytes, and then for a turn."""
        super()._wait(*args)
        self.give_way()


def _cut(content: memoryview) -> Iterator[memoryview]:
    for at in range(0, len(content), PIECE_BYTES):
        yield content[at : at + PIECE_BYTES]


class ConnectionServer(StreamServer):
    """A server of gevent that accepts each client as a `Connection`."""

    # More of them at once would fill the pool before those of them that get no place are refused.
    # Then idle connections of others would be closed.
    max_accept = 32

    def do_read(self) -> tuple[Connection, Any] | None:
        """Accept a client; None if there is none."""
        listener = self.socket
        try:
            descriptor, address = listener._accept()
        except BlockingIOError:
            return None
        kind = listener.family, listener.type, listener.proto
        return Connection(*kind, fileno=descriptor), address
