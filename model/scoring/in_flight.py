"""Keeps passes in flight: a GPU computes a pass while the host builds the results of the last one.

    host      launch 1 | launch 2 | results of 1 | launch 3 | results of 2 | ...
    device             [---- pass 1 ----][---- pass 2 ----][---- pass 3 ----]

A CPU computes a pass while it is launched, so there results are built at once.
"""

from collections import deque
from collections.abc import Callable
from types import TracebackType

import torch


class InFlight:
    """Passes that were launched, and what is to be done with their results, in order.

    As a context manager it ends with no pass in flight. Where the block fails, earlier passes end
    first, as if each had ended before the next was launched: so an error of one of them is the one
    that is raised.
    """

    def __init__(self, max_waiting: int) -> None:
        """Let as many passes as `max_waiting` wait while the next one is launched."""
        self._max_waiting = max_waiting
        self._finishes: deque[Callable[[], None]] = deque()

    @classmethod
    def on(cls, device: torch.device) -> "InFlight":
        """Return as many places as help on `device`."""
        return cls(0 if device.type == "cpu" else 1)

    def add(self, finish: Callable[[], None]) -> None:
        """Note a pass that was just launched; `finish` waits for its results and takes them."""
        self._finishes.append(finish)
        while len(self._finishes) > self._max_waiting:
            self._finishes.popleft()()

    def drain(self) -> None:
        """Finish every pass in flight; after an error the later ones are dropped."""
        try:
            while self._finishes:
                self._finishes.popleft()()
        finally:
            self._finishes.clear()

    def __enter__(self) -> "InFlight":
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish the passes in flight, unless the process is being ended."""
        if kind is None or issubclass(kind, Exception):
            self.drain()
