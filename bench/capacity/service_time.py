"""Fits the time that a worker takes for a micro-batch to measured ones: fixed + per byte."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np

from bench.fleet import MicroBatch

# The first fit weights all micro-batches alike, the others by their relative error.
_NUM_FITS = 3


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """How long a worker takes for a micro-batch."""

    fetches_s: tuple[float, ...]
    """From the moment at which a free worker and a text meet until the model begins; one of each
    measured micro-batch."""
    fixed_s: float
    """From then until the results are stored: the part that does not depend on the bytes."""
    s_per_byte: float
    ratios: tuple[float, ...] = (1.0,)
    """Measured time by that of the line, one of each measured micro-batch."""

    @property
    def fetch_s(self) -> float:
        """The mean of `fetches_s`."""
        return mean(self.fetches_s)

    def of(self, num_bytes: float) -> float:
        """Mean time in the model and until the results are stored, in seconds."""
        return self.fixed_s + self.s_per_byte * num_bytes


class CannotFit(Exception):
    """The micro-batches say too little about the time of one."""


def fit(batches: Sequence[MicroBatch], submitted_at: Mapping[str, float]) -> ServiceTime:
    """Fit a line to the times of measured micro-batches by least squares of relative errors.

    Args:
        submitted_at: Unix time of each job by its task ID, seconds.

    Raises:
        CannotFit: there are fewer than two sizes.
    """
    # A worker may have stored the last results and not have logged that yet.
    whole = [each for each in batches if len(each.task_ids) == each.num_texts]
    sizes = np.array([each.num_bytes for each in whole], dtype=float)
    times_s = np.array([each.ended_at - each.began_at for each in whole])
    if len(set(sizes)) < 2:
        raise CannotFit(f"{len(whole)} micro-batches have one size; a line needs two")
    columns = np.stack([np.ones_like(sizes), sizes], axis=1)
    weights = np.ones_like(sizes)
    for _ in range(_NUM_FITS):
        line, *_ = np.linalg.lstsq(columns * weights[:, None], times_s * weights, rcond=None)
        # Noise may put the line below the smallest time that was measured.
        line_s = np.maximum(columns @ line, times_s.min())
        weights = 1 / line_s
    fixed_s, s_per_byte = map(float, line)
    ratios = tuple(map(float, times_s / line_s))
    return ServiceTime(tuple(_fetches_s(whole, submitted_at)), fixed_s, s_per_byte, ratios)


def _fetches_s(batches: Sequence[MicroBatch], submitted_at: Mapping[str, float]) -> Iterator[float]:
    """Yield how long each micro-batch began after its worker was free and its first text there."""
    free_at: dict[str, float] = {}
    for each in sorted(batches, key=lambda each: each.began_at):
        first_at = min(submitted_at[task_id] for task_id in each.task_ids)
        meet_at = max(free_at.get(each.worker, first_at), first_at)
        free_at[each.worker] = each.ended_at
        yield max(each.began_at - meet_at, 0.0)
