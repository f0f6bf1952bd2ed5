"""A TCP proxy that loses, delays, cuts and half-closes connections to a port of this machine."""

import socket
import struct
import threading
import time
from contextlib import suppress

_CHUNK = 65536
# On close: send nothing more that is buffered, and reset the connection (socket(7), SO_LINGER).
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


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
        self._lock = threading.Lock()
        self._pairs: list[_Pair] = []
        self._bytes_per_s: float | None = None
        self._delay_s = 0.0
        self._swallows_all = False
        self._is_open = threading.Event()
        self._is_open.set()
        self._answers_are_open = threading.Event()
        self._answers_are_open.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self, command: bytes) -> int:
        """Lose what comes and goes on each connection that has sent `command`; return how many."""
        chosen = [pair for pair in self._all() if command in pair.sent and not pair.is_swallowed]
        for pair in chosen:
            pair.is_swallowed = True
        return len(chosen)

    def swallow_all(self, *, is_on: bool) -> None:
        """Lose what comes and goes on each connection, new ones too, until it is switched off.

        Those that were open meanwhile stay silent for good.
        """
        self._swallows_all = is_on
        for pair in self._all() if is_on else ():
            pair.is_swallowed = True

    def slow_down(self, bytes_per_s: float | None) -> None:
        """Send no faster to the server; None for as fast as it goes."""
        self._bytes_per_s = bytes_per_s

    def redirect(self, target_port: int) -> None:
        """Connect new connections to another port; those that are open stay where they are."""
        self._target_port = target_port

    def delay(self, delay_s: float) -> None:
        """Forward each piece this many seconds late."""
        self._delay_s = delay_s

    def cut(self) -> None:
        """Hold back everything, also of new connections, as a partition does."""
        self._is_open.clear()

    def mend(self) -> None:
        """End the partition: what was held back arrives."""
        self._is_open.set()

    def hold_answers(self) -> None:
        """Hold back what the server sends, until `reset`; the server goes on to receive."""
        self._answers_are_open.clear()

    def reset(self) -> None:
        """Reset all connections; what was held back is lost."""
        for pair in self._all():
            pair.is_swallowed = True
            for end in (pair.client, pair.server):
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            # Without the other direction: that would say goodbye first.
            self._end(pair, socket.SHUT_RD)
        self._answers_are_open.set()

    def end_swallowed(self) -> None:
        """Close the connections that were made silent."""
        for pair in self._all():
            if pair.is_swallowed:
                self._end(pair)

    def half_close(self) -> None:
        """Tell each client that the server sends nothing more, and lose the answers."""
        for pair in self._all():
            with suppress(OSError):
                pair.client.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close all connections."""
        self._is_open.set()
        self._answers_are_open.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._all():
            self._end(pair)

    def _all(self) -> list[_Pair]:
        with self._lock:
            return list(self._pairs)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target_port))
        except OSError:
            # The server is away; the client sees its connection closed.
            client.close()
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = _Pair(client, server)
        pair.is_swallowed = self._swallows_all
        with self._lock:
            self._pairs.append(pair)
        for ends in ((pair.client, pair.server), (pair.server, pair.client)):
            threading.Thread(target=self._forward, args=(pair, *ends), daemon=True).start()

    def _forward(self, pair: _Pair, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                self._is_open.wait()
                if source is pair.client:
                    pair.sent = (pair.sent + data)[-_CHUNK:]
                    if self._bytes_per_s:
                        time.sleep(len(data) / self._bytes_per_s)
                else:
                    self._answers_are_open.wait()
                if self._delay_s:
                    time.sleep(self._delay_s)
                if not pair.is_swallowed:
                    target.sendall(data)
        if not pair.is_swallowed:
            self._end(pair)

    def _end(self, pair: _Pair, how: int = socket.SHUT_RDWR) -> None:
        with self._lock:
            if pair in self._pairs:
                self._pairs.remove(pair)
        for end in (pair.client, pair.server):
            with suppress(OSError):
                end.shutdown(how)
            end.close()
