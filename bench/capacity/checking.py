"""Checks the queueing model against workers on this machine: throughput, and waits at each load."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from statistics import mean
from typing import Any

from bench.capacity.queueing import (
    Arrival,
    Workers,
    full_texts_per_s,
    p95,
    poisson,
    simulate,
)
from bench.capacity.service_time import ServiceTime, fit
from bench.fleet import Fleet, steady_texts_per_s

# Texts that are sent at once, so that micro-batches of many sizes are measured.
BURSTS = (1, 2, 4, 8, 16, 32)
RUN_LIMIT_S = 1800.0


def calibrate(workers: Fleet, texts: Sequence[str], num_rounds: int) -> ServiceTime:
    """Measure the service time of micro-batches of many sizes, while all workers are at work."""
    began_at, following = time.time(), cycle(texts)
    for _ in range(num_rounds):
        for burst in BURSTS:
            for text in islice(following, burst * len(workers.workers)):
                workers.submit(text)
            workers.wait_until_left(0, RUN_LIMIT_S)
    return fit(workers.micro_batches(since=began_at), workers.submitted_at)


def measured_full_texts_per_s(workers: Fleet, texts: Sequence[str]) -> float:
    """Throughput while texts always wait."""
    began_at = time.time()
    for text in texts:
        workers.submit(text)
    workers.wait_until_left(0, RUN_LIMIT_S)
    return steady_texts_per_s(workers.micro_batches(since=began_at))


def compare_full(
    workers: Fleet, texts: Sequence[str], model: Workers
) -> tuple[dict[str, Any], float]:
    """Figures of the throughput at saturation, and that throughput."""
    measured = measured_full_texts_per_s(workers, texts)
    computed = full_texts_per_s([len(text.encode()) for text in texts], model)
    return {
        "full_texts_per_s": round(measured, 2),
        "full_texts_per_s_computed": round(computed, 2),
        "full_ratio": round(computed / measured, 3),
    }, measured


def compare_load(
    workers: Fleet, texts: Sequence[str], rate_per_s: float, duration_s: float, model: Workers
) -> dict[str, Any]:
    """Figures of the waits of texts that arrive at random, measured and computed.

    `computed` uses the service times that were measured before. `computed_here` uses those of the
    same run, so that a change of the machine's speed does not count. Both simulate the arrivals of
    the run.
    """
    began_at = time.time()
    task_ids = list(_send(workers, texts, rate_per_s, duration_s))
    workers.wait_until_left(0, RUN_LIMIT_S)
    records = workers.records(task_ids)
    arrivals = [Arrival(each.job["submitted_at"], each.job["num_bytes"]) for each in records]
    timings = [each.result["timings_ms"] for each in records]
    waits = {"measured": [(each["queue"] + each["batch_wait"]) / 1000 for each in timings]}
    here = fit(workers.micro_batches(since=began_at), workers.submitted_at)
    for name, service in (("computed", model.service), ("computed_here", here)):
        outcome = simulate(arrivals, replace(model, service=service))
        waits[name] = [each.wait_s for each in outcome.served]
    found = {name: (mean(each), p95(each)) for name, each in waits.items()}
    figures: dict[str, Any] = {"texts": len(records)}
    for number, what in enumerate(("mean", "p95")):
        for name, values in found.items():
            figures[f"wait_{what}_ms_{name}"] = round(values[number] * 1000, 1)
        for name in ("computed", "computed_here"):
            ratio = found[name][number] / found["measured"][number]
            figures[f"wait_{what}_ratio_{name}"] = round(ratio, 3)
    return figures


def _send(
    workers: Fleet, texts: Sequence[str], rate_per_s: float, duration_s: float
) -> Iterator[str]:
    """Submit texts at the times of a Poisson process; yield their task IDs."""
    times = poisson(rate_per_s, [0], duration_s, seed=0)
    began = time.monotonic()
    for text, (at_s, _) in zip(cycle(texts), times, strict=False):
        time.sleep(max(began + at_s - time.monotonic(), 0.0))
        yield workers.submit(text)
