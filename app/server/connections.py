"""Accepts connections that let others run while a client keeps them busy.

One thread serves all connections. A `recv` that finds bytes returns without giving way to others.
So a client that sends faster than it is served would keep all others waiting.
"""

import time
from collections.abc import Iterator
from typing import Any

from gevent.server import StreamServer
from gevent.socket import socket

from app.requests.upload_stream import MIN_BYTES_PER_S
from app.service.turns import TURN_S, let_others_run

# A large answer is sent in pieces of this size, and the time limit starts again with each.
PIECE_BYTES = 64 * 1024


class Connection(socket):
    """A socket of gevent that gives way to others, and whose time limit is for stalls."""

    __slots__ = ("_began_at",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._began_at = time.perf_counter()

    def recv(self, *args: Any) -> bytes:
        """Receive as `socket.recv` does, after giving way if that is due.

        A call that must not block does not give way either.
        """
        if self.timeout != 0:
            self.give_way()
        received: bytes = super().recv(*args)
        return received

    def sendall(self, content: bytes, flags: int = 0) -> None:
        """Send all of `content`; a client may take any time that keeps to the least speed.

        The time limit of `socket.sendall` would hold for the whole of a large answer.

        Raises:
            TimeoutError: the client stalled, or was slower than `MIN_BYTES_PER_S` for longer than
                the time limit of this socket.
        """
        if self.timeout is None or len(content) <= PIECE_BYTES:
            super().sendall(content, flags)
            return
        full_s = left_s = self.timeout
        try:
            for piece in _cut(memoryview(content)):
                began_at = time.monotonic()
                self.settimeout(left_s)
                super().sendall(piece, flags)
                # Not below 0, even if this process stood still.
                left_s = max(left_s - (time.monotonic() - began_at), 0)
                left_s = min(left_s + len(piece) / MIN_BYTES_PER_S, full_s)
                self.give_way()
        finally:
            self.settimeout(full_s)

    def give_way(self) -> None:
        """Let other connections run if the last time was over `TURN_S` ago."""
        if time.perf_counter() > self._began_at + TURN_S:
            let_others_run()
            self.begin_turn()

    def begin_turn(self) -> None:
        """Note that other connections have just run."""
        self._began_at = time.perf_counter()


def _cut(content: memoryview) -> Iterator[memoryview]:
    for at in range(0, len(content), PIECE_BYTES):
        yield content[at : at + PIECE_BYTES]


class ConnectionServer(StreamServer):
    """A server of gevent that accepts each client as a `Connection`."""

    def do_read(self) -> tuple[Connection, Any] | None:
        """Accept a client; None if there is none."""
        listener = self.socket
        try:
            descriptor, address = listener._accept()
        except BlockingIOError:
            return None
        kind = listener.family, listener.type, listener.proto
        return Connection(*kind, fileno=descriptor), address
