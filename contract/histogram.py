"""What a worker counts of its batches, and the buckets that it counts in; read by /metrics."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

# Powers of two up to the default of EVASCORE_MICRO_BATCH_TEXTS.
BATCH_TEXTS_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
# From a lone text on a GPU to EVASCORE_MICRO_BATCH_TIMEOUT_S, in seconds.
INFERENCE_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 100.0, 300.0)


class Histogram:
    """Counts of values up to each bound and above the last, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def as_json(self) -> dict[str, Any]:
        """The bounds, the number of values in each bucket, and the sum of all values."""
        return {"bounds": self._bounds, "counts": self._counts, "sum": self._sum}
