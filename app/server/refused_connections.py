"""Logs which clients get no connection: one line for each in ten seconds."""

import time
from collections import Counter
from collections.abc import Callable

from contract.logs import get_logger

log = get_logger(__name__)

LOG_EVERY_S = 10.0
# Of many clients, those that were refused most often.
MAX_LINES = 16


class RefusedConnections:
    """Counts refused connections by client until they are logged."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts = Counter[str]()
        self._next_at = clock()

    def add(self, client: str) -> None:
        """Count a refused connection of `client`."""
        self._counts[client] += 1

    def log_due(self) -> None:
        """Log what was counted, unless that was done less than ten seconds ago."""
        if not self._counts or self._clock() < self._next_at:
            return
        for client, count in self._counts.most_common(MAX_LINES):
            log.warning("connections_refused", client=client, count=count)
        self._counts.clear()
        self._next_at = self._clock() + LOG_EVERY_S
