"""Cuts a text longer than the model's context into overlapping windows (sliding window)."""

from dataclasses import dataclass
from typing import NamedTuple


class TextWindow(NamedTuple):
    """Bytes `start` to `end` of a text are scored; the model reads from `context_from` on."""

    start: int
    end: int
    context_from: int

    @property
    def num_bytes(self) -> int:
        """The bytes that the model reads for this window."""
        return self.end - self.context_from


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """Windows of `size_bytes`, each `stride_bytes` after the one before; 1 <= stride <= size."""

    size_bytes: int
    stride_bytes: int

    def cut(self, num_bytes: int) -> list[TextWindow]:
        """Cut a text of `num_bytes`, at least 1.

        A byte is scored in the first window that holds it: there it has the longest context.
        """
        windows = [TextWindow(0, min(num_bytes, self.size_bytes), 0)]
        while (end := windows[-1].end) < num_bytes:
            context_from = windows[-1].context_from + self.stride_bytes
            windows.append(
                TextWindow(end, min(num_bytes, context_from + self.size_bytes), context_from)
            )
        return windows
