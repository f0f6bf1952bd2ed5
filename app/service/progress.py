"""Tracks the last progress of each connection, so that only stalled clients are disconnected."""

import time
from collections.abc import Iterable, Iterator, Mapping
from socket import MSG_DONTWAIT, MSG_PEEK, socket
from typing import Any
from weakref import WeakKeyDictionary


class ConnectionProgress:
    """The time of the last progress on each connection."""

    def __init__(self) -> None:
        self._progress_at: WeakKeyDictionary[socket, float] = WeakKeyDictionary()

    def note(self, environ: Mapping[str, Any]) -> None:
        """Note that the client of the request with this WSGI environment sent or took bytes."""
        # Only Gunicorn says which connection a request came on.
        connection = environ.get("gunicorn.socket")
        if connection is not None:
            self._progress_at[connection] = time.monotonic()

    def noted(self, pieces: Iterable[bytes], environ: Mapping[str, Any]) -> Iterator[bytes]:
        """The pieces of an answer; Gunicorn asks for each when the client took the one before."""
        for piece in pieces:
            yield piece
            self.note(environ)

    def last(self, connection: socket) -> float:
        """Monotonic time of the last progress on a connection, in seconds; 0 for none."""
        return self._progress_at.get(connection, 0.0)


def has_left(environ: Mapping[str, Any]) -> bool:
    """Whether the client has closed its connection; reads nothing from it."""
    connection = environ.get("gunicorn.socket")
    if connection is None:
        return False
    try:
        return not connection.recv(1, MSG_PEEK | MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
