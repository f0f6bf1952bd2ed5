"""Simulates texts that wait for workers, which score what waits in micro-batches.

This is the queue M/G[b]/c: random arrivals, general service times, bulk service of at most b, c
workers. A free worker takes the oldest waiting texts, up to the budget of a micro-batch, and there
is no timer: it takes a single text at once. All texts of a micro-batch get their results together.
"""

import heapq
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bench.capacity.service_time import ServiceTime
from evascore.measuring.load import arrivals


@dataclass(frozen=True, slots=True)
class Workers:
    """Workers that are alike."""

    count: int
    service: ServiceTime
    max_bytes: int
    """Of one micro-batch, as EVASCORE_MICRO_BATCH_BYTES."""
    max_texts: int = 256
    """Of one micro-batch, as EVASCORE_MICRO_BATCH_TEXTS."""


class Arrival(NamedTuple):
    """A text that is accepted."""

    at_s: float
    num_bytes: int


class Served(NamedTuple):
    """What a text met, in seconds from its arrival."""

    wait_s: float
    """Until the model began with its micro-batch."""
    latency_s: float
    """Until its result was stored."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The times of all texts, and how busy the workers were."""

    served: list[Served]
    """In order of arrival."""
    busy_share: float
    """Share of the workers' time in which they were at work."""
    mean_batch_texts: float


def simulate(texts: Sequence[Arrival], workers: Workers, seed: int = 0) -> Outcome:
    """Serve texts in order of arrival; `texts` are in order of time."""
    generator, service = random.Random(seed), workers.service
    free_at_s = [-math.inf] * workers.count
    served: list[Served] = []
    busy_s, num_batches, end_s = 0.0, 0, 0.0
    while len(served) < len(texts):
        first = len(served)
        meet_s = max(heapq.heappop(free_at_s), texts[first].at_s)
        begin_s = meet_s + generator.choice(service.fetches_s)
        # The script that takes texts runs first; opening them takes most of the rest.
        behind, num_bytes = _take(texts, first, workers, until_s=meet_s)
        done_s = begin_s + service.of(num_bytes) * generator.choice(service.ratios)
        for at_s, _ in texts[first:behind]:
            served.append(Served(begin_s - at_s, done_s - at_s))
        heapq.heappush(free_at_s, done_s)
        busy_s, num_batches, end_s = busy_s + done_s - meet_s, num_batches + 1, max(end_s, done_s)
    elapsed_s = end_s - texts[0].at_s
    return Outcome(served, busy_s / elapsed_s / workers.count, len(served) / num_batches)


def full_texts_per_s(sizes: Sequence[int], workers: Workers) -> float:
    """Throughput while texts of these sizes, in bytes, always wait."""
    backlog, behind, elapsed_s = [Arrival(0.0, size) for size in sizes], 0, 0.0
    fetch_s = workers.service.fetch_s
    while behind < len(backlog):
        behind, num_bytes = _take(backlog, behind, workers, until_s=0.0)
        elapsed_s += fetch_s + workers.service.of(num_bytes)
    return workers.count * len(sizes) / elapsed_s


def poisson(rate_per_s: float, sizes: Sequence[int], duration_s: float, seed: int) -> list[Arrival]:
    """Texts at random times; their sizes in bytes are taken in turn."""
    times = arrivals(rate_per_s, duration_s, seed)
    return [Arrival(at_s, size) for at_s, size in zip(times, itertools.cycle(sizes), strict=False)]


def p95(values: Sequence[float]) -> float:
    """The smallest value that at least 95 % of the values do not exceed."""
    return float(np.quantile(values, 0.95, method="inverted_cdf"))


def _take(
    texts: Sequence[Arrival], first: int, workers: Workers, *, until_s: float
) -> tuple[int, int]:
    """Fill a micro-batch with texts that have arrived by then; the first one always fits.

    Returns:
        The number of the first text that is left, and the bytes of the micro-batch.
    """
    num_bytes, last = texts[first].num_bytes, min(first + workers.max_texts, len(texts))
    for behind in range(first + 1, last):
        text = texts[behind]
        if text.at_s > until_s or num_bytes + text.num_bytes > workers.max_bytes:
            return behind, num_bytes
        num_bytes += text.num_bytes
    return last, num_bytes
