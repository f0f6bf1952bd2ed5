"""Limits the memory that bodies of requests or answers take, in all and for each client."""

import threading
from collections import Counter

from contract.errors import Overloaded

# The beginning of each body is not counted, so that large bodies never keep small ones out.
UNCOUNTED_BYTES = 64 * 1024
RETRY_AFTER_S = 2


class BodyMemory:
    """Counts the bytes of bodies that are in memory; one client gets at most half."""

    def __init__(self, limit_bytes: int, kind: str) -> None:
        """Make room for `limit_bytes` of what `kind` names in the plural."""
        self._limit_bytes, self._kind = limit_bytes, kind
        self.share_bytes = limit_bytes // 2
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, client: str, num_bytes: int) -> None:
        """Count `num_bytes` more for `client`; `release` must give them back.

        Raises:
            Overloaded: there is no room for them.
        """
        with self._lock:
            is_full = self._held.total() + num_bytes > self._limit_bytes
            if is_full or self._held[client] + num_bytes > self.share_bytes:
                raise Overloaded(
                    f"{self._kind} in progress take too much memory: the limit is "
                    f"{self._limit_bytes} bytes in all and half of that for one client. Try again "
                    "after Retry-After seconds.",
                    retry_after_s=RETRY_AFTER_S,
                )
            self._held[client] += num_bytes

    def release(self, client: str, num_bytes: int) -> None:
        """Give bytes of `client` back."""
        with self._lock:
            self._held[client] -= num_bytes
            if not self._held[client]:
                del self._held[client]
