"""Keeps micro-batches short: bounds their bytes by what the model read lately in a given time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from worker.scheduling.filling import Budget

# With fewer bytes, the fixed costs of a pass are most of its time.
MIN_BYTES = 512


class Pace:
    """Learns from each micro-batch how many bytes the model reads in `max_s` seconds.

    All results of a micro-batch come together, and a text that arrives meanwhile waits for its end.
    How long that takes depends on the machine, the model and the outputs, so it is measured.
    """

    def __init__(self, max_s: float) -> None:
        """Allow any number of bytes until a micro-batch takes more than `max_s` seconds."""
        self._max_s = max_s
        self._max_bytes: float | None = None

    def limit(self, budget: Budget) -> Budget:
        """Return `budget` with no more bytes than the model reads in time."""
        if self._max_bytes is None:
            return budget
        return replace(budget, bytes=min(max(int(self._max_bytes), MIN_BYTES), budget.bytes))

    @contextmanager
    def measured(self, num_bytes: int, budget: Budget) -> Iterator[None]:
        """Take the time of a micro-batch of `num_bytes`; `budget` is what `limit` returned."""
        began = time.monotonic()
        yield
        self.note(num_bytes, time.monotonic() - began, budget)

    def note(self, num_bytes: int, elapsed_s: float, budget: Budget) -> None:
        """Learn from one micro-batch; a single one changes the limit by at most a factor of two.

        A small and fast one says nothing: fixed costs take most of its time.
        """
        is_in_time = elapsed_s <= self._max_s
        if is_in_time and (self._max_bytes is None or 2 * num_bytes < budget.bytes):
            return
        in_time = num_bytes * self._max_s / max(elapsed_s, 1e-6)
        self._max_bytes = min(max(in_time, budget.bytes / 2), budget.bytes * 2.0)
