"""Keeps a silent Redis from holding every thread of the web server."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from contract.errors import BrokerUnavailable


class BrokerGuard:
    """Once Redis has timed out, lets one request at a time try it and refuses the others at once.

    Without it, requests that queue for a thread would each wait their turn to time out.
    """

    def __init__(self) -> None:
        self._is_silent = False
        self._trial = threading.Lock()

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Surround calls of the job store.

        Raises:
            BrokerUnavailable: from the store, or because Redis was silent a moment ago.
        """
        is_trial = self._is_silent
        if is_trial and not self._trial.acquire(blocking=False):
            raise BrokerUnavailable("The queue does not answer; try again in a moment.")
        timed_out = False
        try:
            yield
        except BrokerUnavailable as error:
            timed_out = isinstance(error.__cause__, redis.TimeoutError)
            raise
        finally:
            self._is_silent = timed_out
            if is_trial:
                self._trial.release()
