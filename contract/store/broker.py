"""The connection to Redis: how long it may take, and what its failures mean to a user."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from contract.errors import BrokerUnavailable
from contract.settings import Settings


def connect(settings: Settings) -> redis.Redis:
    """A thread-safe client whose every call ends within `redis_timeout_s` or raises.

    One retry, and only after a cut connection: a timed-out Redis would double the wait.
    """
    return redis.Redis.from_url(
        settings.redis,
        socket_timeout=settings.redis_timeout_s,
        socket_connect_timeout=settings.redis_timeout_s,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        max_connections=settings.web_threads + 8,
    )


@contextmanager
def broker_errors() -> Iterator[None]:
    """Turn whatever Redis does wrong into BrokerUnavailable."""
    try:
        yield
    except redis.RedisError as error:
        raise BrokerUnavailable(
            f"The queue does not answer ({type(error).__name__}); try again in a moment."
        ) from error
