"""Limits how many waits, event streams or uploads are open at once, in all and for each client."""

import threading
from collections import Counter

from contract.errors import Overloaded

RETRY_AFTER_S = 5
# Idle connections are closed when less than this share of all, or of a client's, is free.
SPARE_SHARE = 1 / 8


class ConnectionSlots:
    """A number of slots, each held by one request at a time; one client gets at most half."""

    def __init__(self, limit: int, kind: str) -> None:
        """Make `limit` slots, at least 2, for what `kind` names in the plural."""
        self.limit = limit
        # Whatever one client does, others find slots.
        self.share = limit // 2
        self._kind = kind
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, client: str) -> bool:
        """Take a slot for `client`, which `release` must give back; False if it gets none."""
        with self._lock:
            if self._held.total() >= self.limit or self._held[client] >= self.share:
                return False
            self._held[client] += 1
            return True

    def is_nearly_full(self, client: str, num_leaving: int = 0) -> bool:
        """Whether less than an eighth of what `client` may hold is left to it.

        Args:
            num_leaving: slots that it holds and is about to give back.
        """
        num_free = self.share - self._held[client] + num_leaving
        return num_free < self.share * SPARE_SHARE

    def acquire(self, client: str) -> None:
        """Take a slot for `client`, which `release` must give back.

        Raises:
            Overloaded: all slots are taken, or the client holds its share.
        """
        if not self.take(client):
            raise self.refusal()

    def refusal(self) -> Overloaded:
        """The error for a client that gets no slot."""
        return Overloaded(
            f"Too many open {self._kind}: the limit is {self.limit} in all and {self.share} for "
            "one client. Try again after Retry-After seconds.",
            retry_after_s=RETRY_AFTER_S,
        )

    def num_held(self) -> int:
        """Number of slots that are taken."""
        return self._held.total()

    def release(self, client: str) -> None:
        """Give a slot of `client` back."""
        with self._lock:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]
