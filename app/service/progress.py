"""Which long requests get on: the routes tell the edge, which cuts off only stalled ones."""

import time
from collections.abc import Mapping
from socket import MSG_DONTWAIT, MSG_PEEK, socket
from typing import Any
from weakref import WeakKeyDictionary


class Pace:
    """The last progress on each connection."""

    def __init__(self) -> None:
        self._progress_at: WeakKeyDictionary[socket, float] = WeakKeyDictionary()

    def progressed(self, environ: Mapping[str, Any]) -> None:
        """The client of the request with this WSGI environment has sent or taken something."""
        # Only Gunicorn tells which connection it is.
        connection = environ.get("gunicorn.socket")
        if connection is not None:
            self._progress_at[connection] = time.monotonic()

    @staticmethod
    def has_left(environ: Mapping[str, Any]) -> bool:
        """Whether the client has closed its connection; nothing is taken from it."""
        connection = environ.get("gunicorn.socket")
        if connection is None:
            return False
        try:
            return not connection.recv(1, MSG_PEEK | MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def last(self, connection: socket) -> float:
        """Monotonic time of the last progress on a connection, seconds; 0 if none was told."""
        return self._progress_at.get(connection, 0.0)
