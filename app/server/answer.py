"""Sends the header of an answer and the first piece of its body in one write."""

from typing import Any

from gunicorn.http import wsgi

# The first piece of an answer goes out together with its header, unless it is larger than this.
JOINED_BYTES = 64 * 1024


class Answer(wsgi.Response):
    """Sends the header of an answer and the first piece of its body in one write."""

    sock: Any

    def write(self, piece: bytes) -> None:
        """Send a piece of the body, after the header."""
        if self.headers_sent or len(piece) > JOINED_BYTES:
            super().write(piece)
            return
        connection, gathered = self.sock, _Gathered()
        self.sock = gathered
        try:
            super().write(piece)
        finally:
            self.sock = connection
        connection.sendall(b"".join(gathered.pieces))


class _Gathered:
    """Stands for a socket, and keeps what is sent."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def sendall(self, piece: bytes) -> None:
        self.pieces.append(piece)
