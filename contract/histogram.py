"""Counts values in buckets, as Prometheus histograms do."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

# Powers of two up to the default of EVASCORE_MICRO_BATCH_TEXTS.
BATCH_TEXTS_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
# From a lone text on a GPU to EVASCORE_MICRO_BATCH_TIMEOUT_S, in seconds.
INFERENCE_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 100.0, 300.0)
# From a write to Redis to a job that waits for its deadline, in seconds.
STAGE_BOUNDS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 100.0, 600.0, 3600.0)


@dataclass(slots=True)
class Histogram:
    """Counts of values up to each bound and above the last bound, and the sum of all values."""

    bounds: Sequence[float]
    counts: list[int] = field(default_factory=list)
    """One count per bucket; all zero at first."""
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
