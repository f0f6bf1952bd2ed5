"""Connects to Redis with time limits."""

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
    would double the wait.
    """
    return redis.Redis.from_url(
        settings.redis,
        max_connections=MAX_CALLS + _OTHER_CONNECTIONS,
        socket_timeout=settings.redis_timeout_s,
        socket_connect_timeout=settings.redis_timeout_s,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )
