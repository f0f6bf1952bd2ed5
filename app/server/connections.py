"""Accepts connections that let others run while a client keeps them busy.

One thread serves all connections. A `recv` that finds bytes returns without giving way to others.
So a client that sends faster than it is served would keep all others waiting.
"""

import time
from typing import Any

from gevent.server import StreamServer
from gevent.socket import socket

from app.service.turns import TURN_S, let_others_run


class Connection(socket):
    """A socket of gevent whose reads give way to other connections."""

    __slots__ = ("_began_at",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._began_at = time.perf_counter()

    def recv(self, *args: Any) -> bytes:
        """Receive as `socket.recv` does, after giving way if that is due."""
        self.give_way()
        received: bytes = super().recv(*args)
        return received

    def give_way(self) -> None:
        """Let other connections run if the last time was over `TURN_S` ago."""
        if time.perf_counter() > self._began_at + TURN_S:
            let_others_run()
            self.begin_turn()

    def begin_turn(self) -> None:
        """Note that other connections have just run."""
        self._began_at = time.perf_counter()


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
