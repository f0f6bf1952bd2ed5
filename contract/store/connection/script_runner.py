"""Runs scripts in Redis for less CPU time than redis-py's commands take.

redis-py looks for unread bytes before each command and counts for telemetry around it. Under gevent
that is two thirds of a call. Here a connection is used at once, and one that broke connects again.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis
from redis.commands.core import Script

# Redis reads an argument of this size into a buffer of its own (`PROTO_MBULK_BIG_ARG`). Then it
# makes another one for the next argument.
LARGE_BYTES = 32 * 1024


class ScriptRunner:
    """Connections for scripts, one per concurrent call; safe to share between threads."""

    def __init__(self, client: redis.Redis) -> None:
        """Connect as `client` does, with its time limits."""
        self._client = client
        self._idle: list[Any] = []

    def run(self, script: Script, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """What a script returns; `script` must be safe to repeat.

        It is repeated once after a connection that was cut.

        Raises:
            redis.RedisError
        """
        command = "EVALSHA", script.sha, len(keys), *keys, *args
        try:
            return self._call(command)
        except redis.exceptions.NoScriptError:
            # Loaded by the way. Another connection might lead to another server after a failover.
            return self._call(("EVAL", script.script, len(keys), *keys, *args))

    def drop_idle(self) -> None:
        """Close the connections that no call uses, those of the client too.

        After a time-out they may be dead: a network that drops connections without a word drops all
        idle ones. Each would cost a call.
        """
        self._client.connection_pool.disconnect(inuse_connections=False)
        with suppress(IndexError):
            while True:
                self._idle.pop().disconnect()

    def _call(self, command: Sequence[Any]) -> Any:
        connection = self._take()
        try:
            # After any failure except an error reply of Redis, redis-py closes the connection.
            # The next command opens it again.
            return _answer(connection, command)
        except redis.ConnectionError:
            return _answer(connection, command)
        finally:
            if max(map(_num_bytes, command)) >= LARGE_BYTES:
                # Redis would keep that buffer for seconds. Admission would count it as memory of
                # results.
                connection.disconnect()
            self._idle.append(connection)

    def _take(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            pool = self._client.connection_pool
            return pool.connection_class(**pool.connection_kwargs)


def _num_bytes(word: Any) -> int:
    return len(word) if isinstance(word, str | bytes) else 0


def _answer(connection: Any, command: Sequence[Any]) -> Any:
    connection.send_command(*command)
    return connection.read_response()
