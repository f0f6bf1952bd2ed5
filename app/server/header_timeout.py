"""Limits how long a client may take to send the header of a request."""

import fcntl
import struct
import termios
from typing import Any

import gevent

# A client has this long to send a header. On a new connection, this includes the wait for its first
# byte.
HEADER_S = 5
# Bytes that arrived in time and are read late, on a busy machine, give a header this long to end.
LATE_HEADER_S = 1


class HeaderTimeout(BaseException):
    """Raises itself in the current greenlet when a header has not arrived in time.

    A process that was stopped or busy meanwhile first reads what has arrived. Otherwise it would
    drop connections of clients that sent their requests in time.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._greenlet = gevent.getcurrent()
        self._timer = gevent.get_hub().loop.timer(HEADER_S, repeat=LATE_HEADER_S)
        self._is_late = False

    def __enter__(self) -> None:
        self._timer.start(self._expire)

    def __exit__(self, *error: object) -> None:
        self._timer.close()

    def _expire(self) -> None:
        if not self._is_late and has_unread_bytes(self._client):
            self._is_late = True
            # From now on: after a stop, the next repetition would be due at once.
            self._timer.again(self._expire, update=True)
        else:
            self._greenlet.throw(self)


def has_unread_bytes(client: Any) -> bool:
    """Whether bytes of `client`, a socket, have arrived that nobody has read."""
    (num_bytes,) = struct.unpack("i", fcntl.ioctl(client.fileno(), termios.FIONREAD, bytes(4)))
    return num_bytes > 0
