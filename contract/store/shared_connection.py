"""Runs scripts for many requests over one connection to Redis, which answers in order.

A connection of redis-py's pool serves one call at a time. Here calls are written one after another
without waiting for the answers of those before. One of the waiting calls reads the answers of all,
so there is no thread for it. A call costs a third of the CPU time.
"""

import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis
from redis.commands.core import Script


class SharedConnection:
    """A connection that is opened when it is needed, and again after it broke."""

    def __init__(self, client: redis.Redis, timeout_s: float) -> None:
        """Connect as `client` does.

        Args:
            timeout_s: a call ends within this time or raises `redis.TimeoutError`.
        """
        self._client, self._timeout_s = client, timeout_s
        self._lock = threading.Lock()
        self._line: _Line | None = None

    def run(self, script: Script, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """What a script returns; `script` must be safe to repeat.

        It is repeated once after a connection that was cut.

        Raises:
            redis.RedisError
        """
        try:
            return self._call("EVALSHA", script.sha, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            self._client.script_load(script.script)
            return self._call("EVALSHA", script.sha, len(keys), *keys, *args)

    def _call(self, *command: Any) -> Any:
        try:
            return self._current().call(*command)
        except redis.ConnectionError:
            return self._current().call(*command)

    def _current(self) -> "_Line":
        line = self._line
        if line is not None and not line.is_broken:
            return line
        with self._lock:
            if self._line is None or self._line.is_broken:
                pool = self._client.connection_pool
                limit = {"socket_timeout": self._timeout_s}
                connection = pool.connection_class(**pool.connection_kwargs | limit)
                connection.connect()
                self._line = _Line(connection, self._timeout_s)
            return self._line


class _Call:
    """A command that was sent, and its answer."""

    __slots__ = ("answer", "error", "is_done", "turn")

    def __init__(self) -> None:
        self.turn = threading.Event()
        """Is set when the call is done, and when it is its turn to read."""
        self.is_done = False
        self.answer: Any = None
        self.error: Exception | None = None

    def end(self, answer: Any, error: Exception | None) -> None:
        """Take the answer, or the error in its place, and wake the thread that waits."""
        self.answer, self.error, self.is_done = answer, error, True
        self.turn.set()


class _Line:
    """One connection, until it breaks, and the calls that wait for its answers, in order."""

    def __init__(self, connection: Any, timeout_s: float) -> None:
        self._connection, self._timeout_s = connection, timeout_s
        self._socket = connection._sock
        self._waiting: deque[_Call] = deque()
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self.is_broken = False

    def call(self, *command: Any) -> Any:
        """The answer to a command. Raises: redis.RedisError."""
        until, mine = time.monotonic() + self._timeout_s, _Call()
        self._send(self._connection.pack_command(*command), mine)
        while not mine.is_done:
            if self._reading.acquire(blocking=False):
                self._read_until(mine, until)
            elif not mine.turn.wait(max(until - time.monotonic(), 0)):
                raise redis.TimeoutError("Redis did not answer in time.")
            else:
                mine.turn.clear()
        if mine.error is not None:
            raise mine.error
        return mine.answer

    def _send(self, packed: Sequence[bytes], mine: _Call) -> None:
        with self._writing:
            if self.is_broken:
                raise redis.ConnectionError("The connection broke before the call.")
            self._waiting.append(mine)
            try:
                for piece in packed:
                    self._socket.sendall(piece)
            except BaseException as error:
                self._break(error)
                if isinstance(error, TimeoutError):
                    raise redis.TimeoutError("Redis took no command in time.") from error
                if isinstance(error, OSError):
                    raise redis.ConnectionError(f"Not sent ({type(error).__name__}).") from error
                raise

    def _read_until(self, mine: _Call, until: float) -> None:
        """Read answers until that of `mine` came, then let the next call read."""
        try:
            while not mine.is_done:
                self._read_one()
                if not mine.is_done and time.monotonic() > until:
                    raise redis.TimeoutError("Redis did not answer in time.")
        finally:
            self._reading.release()
            # A call that comes after this look finds nobody reading, and reads.
            with suppress(IndexError):
                self._waiting[0].turn.set()

    def _read_one(self) -> None:
        answer, refusal = None, None
        try:
            answer = self._connection.read_response(disconnect_on_error=False)
        except redis.ResponseError as error:
            refusal = error
        except BaseException as error:
            with self._writing:
                self._break(error)
            self._connection.disconnect()
            raise
        # Nobody waits for what came before another thread found the connection broken.
        with suppress(IndexError):
            self._waiting.popleft().end(answer, refusal)

    def _break(self, error: BaseException) -> None:
        """End the connection for good; all calls that wait fail.

        The socket is closed by the call that reads from it. A thread that still waits for a closed
        one would wait for the next connection, which gets its number.
        """
        self.is_broken = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        reason = error if isinstance(error, redis.RedisError) else redis.ConnectionError("Cut.")
        while self._waiting:
            self._waiting.popleft().end(None, reason)
