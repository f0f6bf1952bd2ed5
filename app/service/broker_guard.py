"""Keeps a silent Redis from holding every thread of the web server."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis

from contract.errors import BrokerUnavailable

# Long enough for the requests that queued for a thread meanwhile to be refused before one of them
# would be the next to wait.
PAUSE_S = 0.5


class BrokerGuard:
    """Once Redis has timed out, refuses calls at once, but for one at a time that tries it again.

    Without it, requests that queue for a thread would each wait their turn to time out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._silent_since: float | None = None
        self._trial = threading.Lock()

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Surround calls of the job store.

        Raises:
            BrokerUnavailable: from the store, or because Redis was silent a moment ago.
        """
        is_trial = self._silent_since is not None
        if is_trial and not self._may_try():
            raise BrokerUnavailable("The queue does not answer; try again in a moment.")
        silent_since = None
        try:
            yield
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, redis.TimeoutError):
                silent_since = self._clock()
            raise
        finally:
            self._silent_since = silent_since
            if is_trial:
                self._trial.release()

    def _may_try(self) -> bool:
        is_over = self._clock() > (self._silent_since or 0) + PAUSE_S
        return is_over and self._trial.acquire(blocking=False)
