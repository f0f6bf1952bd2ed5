"""Bounded numbers of requests that may hold a thread for long."""

import threading

from contract.errors import Overloaded

RETRY_AFTER_S = 5


class Places:
    """So many places, each held by one request at a time."""

    def __init__(self, limit: int, what: str) -> None:
        """Make `limit` places for what `what` names in the plural."""
        self._limit = limit
        self._what = what
        self._free = threading.BoundedSemaphore(limit)

    def take(self) -> None:
        """Take a place, which `leave` must give back.

        Raises:
            Overloaded: all are taken.
        """
        if not self._free.acquire(blocking=False):
            raise Overloaded(
                f"{self._limit} {self._what} are open, which is the limit; "
                "try again after Retry-After seconds.",
                retry_after_s=RETRY_AFTER_S,
            )

    def leave(self) -> None:
        """Give a place back."""
        self._free.release()
