"""Turns failures of Redis into BrokerUnavailable, and fails fast while Redis does not answer."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis

from contract.errors import BrokerUnavailable
from contract.store.connection.refusals import Reason, refusal_reason

# In this time, requests that queued for a thread during the time-out are all refused. Otherwise one
# of them would be the next to wait for Redis.
PAUSE_S = 0.5
# A call takes less than a millisecond, or until Redis has synced its file. So these serve thousands
# of requests. Each call holds a connection.
MAX_CALLS = 64
# Further calls wait this long for their turn.
MAX_TURN_S = 2.0

_REFUSALS: dict[Reason, str] = {
    "full": "its memory is full",
    "disk": "its disk is full",
    "read_only": "it is read-only, or its disk is nearly full",
}


class BrokerGuard:
    """A circuit breaker: after a time-out, one call at a time tries Redis; the others fail at once.

    Without it, each request that waits for its turn would wait for a time-out of its own. The
    stores share one guard and enter it once per round trip: `calling` must not be nested.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Guard calls; `on_lost` is called after a time-out, and where Redis is a replica now.

        Other connections may then be dead, or lead to that replica.
        """
        self._clock = clock
        self._on_lost = on_lost
        self._silent_since: float | None = None
        self._trial = threading.Lock()
        self._slots = threading.BoundedSemaphore(MAX_CALLS)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Surround commands to Redis.

        Raises:
            BrokerUnavailable: Redis failed now, or did not answer a moment ago.
        """
        if not self._slots.acquire(timeout=MAX_TURN_S):
            raise BrokerUnavailable("Too many requests wait for Redis; try again in a moment.")
        try:
            with self._breaking():
                yield
        finally:
            self._slots.release()

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        is_trial = self._silent_since is not None
        if is_trial and not self._may_try():
            raise BrokerUnavailable("Redis does not answer; try again in a moment.")
        silent_since = None
        try:
            yield
        except redis.RedisError as error:
            if isinstance(error, redis.TimeoutError):
                silent_since = self._clock()
            if isinstance(error, redis.TimeoutError | redis.ReadOnlyError):
                self._on_lost()
            raise BrokerUnavailable(_describe(error)) from error
        finally:
            self._silent_since = silent_since
            if is_trial:
                self._trial.release()

    def _may_try(self) -> bool:
        is_over = self._clock() > (self._silent_since or 0) + PAUSE_S
        return is_over and self._trial.acquire(blocking=False)


def describe_to_operator(error: redis.RedisError) -> str:
    """Return the line of a command that failed because of Redis, with what to check."""
    if isinstance(error, redis.ResponseError):
        return _describe(error)
    hint = "start the service, or check EVASCORE_REDIS_URL and EVASCORE_DATA_DIR"
    return f"Redis does not answer ({type(error).__name__}); {hint}"


def _describe(error: redis.RedisError) -> str:
    reason = refusal_reason(error, lambda: False)
    if reason is None:
        return f"Redis does not answer ({type(error).__name__}); try again in a moment."
    if reason in _REFUSALS:
        return f"Redis refuses writes ({_REFUSALS[reason]}); try again in a moment."
    return f"Redis answered with an error ({type(error).__name__}); try again in a moment."
