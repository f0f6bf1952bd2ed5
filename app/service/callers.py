"""Identifies the client of a request, and detects when it has hung up."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Linux tells the state of a connection in the first byte of TCP_INFO.
_TCP_INFO = getattr(socket, "TCP_INFO", None)
_TCP_ESTABLISHED = 1
# The end of a connection stands behind all that its client sent. Linux takes in at least 64 KiB.
MAX_UNREAD_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of one request and its connection."""

    client: str
    """The name that its slots are counted under."""
    environ: Mapping[str, Any]
    """The WSGI environment of the request."""

    def has_left(self) -> bool:
        """Whether the client has closed its connection; takes nothing from it.

        One that has sent `MAX_UNREAD_BYTES` more counts as gone: its end could not be seen.
        """
        # Only Gunicorn says which connection a request came on.
        connection = self.environ.get("gunicorn.socket")
        return connection is not None and _is_closed(connection)


def _is_closed(connection: socket.socket) -> bool:
    timeout_s = connection.gettimeout()
    try:
        connection.settimeout(0)
        num_unread = len(connection.recv(MAX_UNREAD_BYTES, socket.MSG_PEEK))
        if num_unread in (0, MAX_UNREAD_BYTES):
            return True
        # The client has sent its next request already, and may have left since.
        return connection.family != socket.AF_UNIX and not _is_established(connection)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(timeout_s)


def _is_established(connection: socket.socket) -> bool:
    if _TCP_INFO is None:
        return True
    return connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0] == _TCP_ESTABLISHED
