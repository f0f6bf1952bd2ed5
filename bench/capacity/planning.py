"""Finds the least number of GPUs that keeps the 95th percentile of latency below a target."""

import math
import random
from dataclasses import dataclass, replace

from bench.capacity.queueing import (
    Arrival,
    Outcome,
    Workers,
    full_texts_per_s,
    p95,
    poisson,
    simulate,
)

HOURS_PER_MONTH = 730
MAX_GPUS = 10_000
# A run has at least this many full micro-batches, and a number of texts between the two limits.
_NUM_CYCLES = 100
_MIN_TEXTS, _MAX_TEXTS = 20_000, 400_000
# The first part of a run, in which the queue fills, is left out.
_WARM_UP = 0.1
_NUM_SIZES = 10_007


@dataclass(frozen=True, slots=True)
class Demand:
    """What has to be scored, and how fast."""

    texts_per_s: float
    bytes_per_text: float
    """The mean; lengths are drawn from an exponential distribution."""
    p95_s: float
    """Target of 95 % of the texts: time from their acceptance to their result."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A fleet, and what is expected of it."""

    num_gpus: int
    p95_s: float
    mean_batch_texts: float
    utilisation: float
    """Share of the time in which a GPU has work, 0 to 1."""
    full_texts_per_s: float
    """What the fleet scores at most."""
    euros_per_month: float
    euros_per_million_texts: float


class CannotPlan(Exception):
    """No number of GPUs meets the demand; the message says why."""


def plan(demand: Demand, one: Workers, euros_per_gpu_hour: float, seed: int = 0) -> Plan:
    """Find the smallest fleet for a demand.

    Args:
        one: a fleet of one GPU.

    Raises:
        CannotPlan
    """
    sizes = text_sizes(demand.bytes_per_text, seed)
    _check_lone_text(demand, one, sizes)
    arrivals = _arrivals(demand, one, sizes, seed)
    # With one GPU fewer, texts arrive faster than the GPUs read bytes.
    too_few = math.ceil(demand.texts_per_s / full_texts_per_s(sizes, one)) - 1
    step, enough = 1, too_few + 1
    while not _is_met(demand, _run(one, enough, arrivals)):
        too_few, enough, step = enough, enough + step, 2 * step
        if enough > MAX_GPUS:
            raise CannotPlan(f"{MAX_GPUS:,} GPUs do not suffice; check the units")
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if _is_met(demand, _run(one, middle, arrivals)):
            enough = middle
        else:
            too_few = middle
    outcome = _run(one, enough, arrivals)
    euros_per_hour = enough * euros_per_gpu_hour
    return Plan(
        num_gpus=enough,
        p95_s=_p95_s(outcome),
        mean_batch_texts=outcome.mean_batch_texts,
        utilisation=outcome.busy_share,
        full_texts_per_s=full_texts_per_s(sizes, replace(one, count=enough)),
        euros_per_month=euros_per_hour * HOURS_PER_MONTH,
        euros_per_million_texts=euros_per_hour / (demand.texts_per_s * 3600) * 1e6,
    )


def text_sizes(mean_bytes: float, seed: int) -> list[int]:
    """Lengths of texts in bytes with this mean, from an exponential distribution."""
    generator = random.Random(seed)
    return [max(round(generator.expovariate(1 / mean_bytes)), 1) for _ in range(_NUM_SIZES)]


def _check_lone_text(demand: Demand, one: Workers, sizes: list[int]) -> None:
    alone_s = one.service.fetch_s + one.service.of(p95(sizes))
    if alone_s > demand.p95_s:
        raise CannotPlan(
            f"an idle GPU takes {alone_s:.3g} s for a text that is longer than 95 % of the others, "
            f"and the target is {demand.p95_s:g} s: more GPUs do not help; raise --p95-s, or take "
            "a faster GPU"
        )


def _arrivals(demand: Demand, one: Workers, sizes: list[int], seed: int) -> list[Arrival]:
    cycle_s = one.service.fetch_s + one.service.of(one.max_bytes)
    wanted = demand.texts_per_s * cycle_s * _NUM_CYCLES
    num_texts = min(max(wanted, _MIN_TEXTS), _MAX_TEXTS)
    return poisson(demand.texts_per_s, sizes, num_texts / demand.texts_per_s, seed)


def _run(one: Workers, count: int, arrivals: list[Arrival]) -> Outcome:
    return simulate(arrivals, replace(one, count=count))


def _p95_s(outcome: Outcome) -> float:
    settled = outcome.served[int(_WARM_UP * len(outcome.served)) :]
    return p95([each.latency_s for each in settled])


def _is_met(demand: Demand, outcome: Outcome) -> bool:
    return _p95_s(outcome) <= demand.p95_s
