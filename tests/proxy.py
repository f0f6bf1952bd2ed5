"""A TCP proxy in front of Redis that swallows the traffic of chosen connections, or of all."""

import socket
import threading
import time
from contextlib import suppress

_CHUNK = 65536


class _Pair:
    """One connection of a client, and the proxy's own to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.sent = b""
        """What the client has sent lately."""
        self.is_swallowed = False


class Proxy:
    """Forwards connections to a port of this machine; a swallowed one stays open and is silent."""

    def __init__(self, target_port: int) -> None:
        """Listen on a free port until `close`."""
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._pairs: list[_Pair] = []
        self._bytes_per_s: float | None = None
        self._is_open = threading.Event()
        self._is_open.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self, command: bytes) -> int:
        """Lose what comes and goes on each connection that has sent `command`; return how many."""
        chosen = [pair for pair in self._pairs if command in pair.sent and not pair.is_swallowed]
        for pair in chosen:
            pair.is_swallowed = True
        return len(chosen)

    def slow_down(self, bytes_per_s: float | None) -> None:
        """Send no faster to the server; None for as fast as it goes."""
        self._bytes_per_s = bytes_per_s

    def cut(self) -> None:
        """Hold back everything, also of new connections, as a partition does."""
        self._is_open.clear()

    def mend(self) -> None:
        """End the partition: what was held back arrives."""
        self._is_open.set()

    def close(self) -> None:
        """Close all connections."""
        self._is_open.set()
        self._listener.close()
        for pair in self._pairs:
            self._end(pair)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                pair = _Pair(client, socket.create_connection(("127.0.0.1", self._target_port)))
                self._pairs.append(pair)
                for ends in ((pair.client, pair.server), (pair.server, pair.client)):
                    threading.Thread(target=self._forward, args=(pair, *ends), daemon=True).start()

    def _forward(self, pair: _Pair, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                self._is_open.wait()
                if source is pair.client:
                    pair.sent = (pair.sent + data)[-_CHUNK:]
                if self._bytes_per_s and source is pair.client:
                    time.sleep(len(data) / self._bytes_per_s)
                if not pair.is_swallowed:
                    target.sendall(data)
        if not pair.is_swallowed:
            self._end(pair)

    @staticmethod
    def _end(pair: _Pair) -> None:
        for end in (pair.client, pair.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
