"""Limits how many uploads or event streams are open at once, since each holds a thread."""

import threading

from contract.errors import Overloaded

RETRY_AFTER_S = 5


class ConnectionSlots:
    """A fixed number of slots, each held by one request at a time."""

    def __init__(self, limit: int, kind: str) -> None:
        """Make `limit` slots for what `kind` names in the plural."""
        self._limit = limit
        self._kind = kind
        self._free = threading.BoundedSemaphore(limit)

    def acquire(self) -> None:
        """Take a slot, which `release` must give back.

        Raises:
            Overloaded: all slots are taken.
        """
        if not self._free.acquire(blocking=False):
            raise Overloaded(
                f"The limit of {self._limit} open {self._kind} is reached; "
                "try again after Retry-After seconds.",
                retry_after_s=RETRY_AFTER_S,
            )

    def release(self) -> None:
        """Give a slot back."""
        self._free.release()
