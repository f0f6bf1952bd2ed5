"""Connects to Redis with time limits."""

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from contract.settings import Settings
from contract.store.connection.broker_guard import MAX_CALLS

# For calls that no guard counts.
_OTHER_CONNECTIONS = 8

MIN_MAJOR = 7


def too_old(client: redis.Redis) -> str | None:
    """Return the version of a Redis that cannot run the scripts, None for one that can.

    `#!lua flags=allow-oom` came with Redis 7.0. Valkey tells the Redis version that it stands for.
    """
    version = str(client.info("server")["redis_version"])
    return version if int(version.partition(".")[0]) < MIN_MAJOR else None


def connect(settings: Settings) -> redis.Redis:
    """A thread-safe client whose every call ends within `redis_timeout_s` or raises.

    It retries once, and only after a cut connection: with a Redis that does not answer, a retry
    would double the wait. A server that has become a replica is left, since the address may lead to
    the one that takes writes now.
    """
    client = redis.Redis.from_url(
        settings.redis,
        max_connections=MAX_CALLS + _OTHER_CONNECTIONS,
        socket_timeout=settings.redis_timeout_s,
        socket_connect_timeout=settings.redis_timeout_s,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )
    pool = client.connection_pool
    pool.connection_class = type("Connection", (_LeavesReplica, pool.connection_class), {})
    return client


class _LeavesReplica:
    """Mixin of connections: after Redis has refused a write as a replica, it connects again.

    A failover need not close the connections to the server that was the master.
    """

    _is_to_replica = False

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a response, and note if it says that the server is a replica."""
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except redis.ReadOnlyError:
            # Not at once: the other responses of a pipeline are still to be read.
            self._is_to_replica = True
            raise

    def send_packed_command(self, *args: Any, **options: Any) -> None:
        """Send commands, on a new connection if the old one leads to a replica."""
        if self._is_to_replica:
            self._is_to_replica = False
            self.disconnect()  # type: ignore[attr-defined]
        super().send_packed_command(*args, **options)  # type: ignore[misc]
