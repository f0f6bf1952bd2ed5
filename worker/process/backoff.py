"""Waits longer and longer between connections that are lost again soon.

A connection that is lost before the worker consumes is paced by Celery (1 s after 5 in a second).
"""

import time
from collections.abc import Callable

FIRST_S, MAX_S = 0.25, 5.0
# A connection that lasted this long was a good one.
GOOD_S = 10.0
_STEP_S = 0.1


class Backoff:
    """How long to wait before a connection is used, from how long the last ones lasted."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._connected_at: float | None = None
        self._num_short = 0

    def delay_s(self) -> float:
        """Note a new connection; return the wait before its use: none for the first two."""
        now = self._clock()
        was_short = self._connected_at is not None and now - self._connected_at < GOOD_S
        self._num_short = self._num_short + 1 if was_short else 0
        doublings = min(self._num_short - 2, 10)
        delay_s = min(FIRST_S * 2**doublings, MAX_S) if self._num_short > 1 else 0.0
        self._connected_at = now + delay_s
        return delay_s


def wait(delay_s: float, is_stopping: Callable[[], bool]) -> None:
    """Sleep, but not when the process has to stop meanwhile."""
    ends_at = time.monotonic() + delay_s
    while not is_stopping() and (rest_s := ends_at - time.monotonic()) > 0:
        time.sleep(min(rest_s, _STEP_S))
