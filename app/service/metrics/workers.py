"""Makes the metrics of the workers, from the statuses that they store with their leases."""

import itertools
from collections.abc import Iterator
from typing import get_args

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from contract.histogram import Histogram
from contract.store.connection.refusals import REASONS
from contract.store.queue.model_registry import PRIORITY_NAMES
from contract.worker_status import STAGES, WorkerState, WorkerStatus, stage_name

WORKER_STATES: tuple[WorkerState, ...] = get_args(WorkerState)
# Fields of a worker's status that become counters.
_COUNTED = (
    ("num_batches", "evascore_batches", "Micro-batches that a worker has scored since it started."),
    ("num_texts", "evascore_texts", "Texts that a worker has scored since it started."),
    ("num_bytes", "evascore_text_bytes", "Bytes that a worker has scored since it started."),
    (
        "num_halvings",
        "evascore_out_of_memory_halvings",
        "How often a micro-batch did not fit into memory since the worker started.",
    ),
)
_HISTOGRAMS = (
    (
        "batch_texts",
        "evascore_batch_texts",
        "Texts in one micro-batch; each slice of a long text counts as one.",
    ),
    ("inference_s", "evascore_inference_seconds", "Time of one micro-batch in the model."),
)


def worker_metrics(workers: list[WorkerStatus], lost: list[str]) -> Iterator[Metric]:
    """Yield the metrics of workers; most have one series for each.

    Args:
        lost: names of those that ended or lost Redis without giving their lease back.
    """
    yield _silences(workers)
    yield _lost(lost)
    yield _refusals(workers)
    yield _workers_by_state(workers)
    yield _worker_speeds(workers)
    yield _worker_starts(workers)
    yield from _worker_counters(workers)
    yield from _worker_histograms(workers)
    yield _stages(workers)
    yield _models(workers)
    yield _micro_batch_limits(workers)
    yield from _gpus(workers)


def _silences(workers: list[WorkerStatus]) -> Metric:
    family = GaugeMetricFamily(
        "evascore_worker_silent_seconds",
        "Time since a ready worker made a step: a pass, a stored result or an answer to a fetch.",
        labels=("worker",),
    )
    for worker in workers:
        if worker.is_warm and worker.silent_s is not None:
            family.add_metric((worker.name,), worker.silent_s)
    return family


def _lost(names: list[str]) -> Metric:
    family = GaugeMetricFamily(
        "evascore_worker_lost",
        "1 for a worker that ended or lost Redis without giving its lease back, until it is back "
        "or, beside others, for an hour.",
        labels=("worker",),
    )
    for name in names:
        family.add_metric((name,), 1)
    return family


def _refusals(workers: list[WorkerStatus]) -> Metric:
    family = CounterMetricFamily(
        "evascore_refused_endings",
        "How often Redis refused a result or an error of a job since the worker started.",
        labels=("worker", "reason"),
    )
    for worker in workers:
        for reason in REASONS:
            family.add_metric((worker.name, reason), worker.refused_endings.get(reason, 0))
    return family


def _workers_by_state(workers: list[WorkerStatus]) -> Metric:
    family = GaugeMetricFamily("evascore_workers", "Living workers.", labels=("state",))
    states = [worker.state for worker in workers]
    for state in WORKER_STATES:
        family.add_metric((state,), states.count(state))
    return family


def _worker_speeds(workers: list[WorkerStatus]) -> Metric:
    family = GaugeMetricFamily(
        "evascore_bytes_per_second",
        "Speed of a worker's recent micro-batches; absent before the first.",
        labels=("worker",),
    )
    for worker in workers:
        if worker.bytes_per_s is not None:
            family.add_metric((worker.name,), worker.bytes_per_s)
    return family


def _worker_starts(workers: list[WorkerStatus]) -> Metric:
    family = GaugeMetricFamily(
        "evascore_startup_seconds",
        "Time of each finished phase of a worker's start.",
        labels=("worker", "phase"),
    )
    for worker in workers:
        for phase, elapsed_s in worker.startup.seconds.items():
            family.add_metric((worker.name, phase), elapsed_s)
    return family


def _worker_counters(workers: list[WorkerStatus]) -> Iterator[Metric]:
    for field, name, meaning in _COUNTED:
        family = CounterMetricFamily(name, meaning, labels=("worker",))
        for worker in workers:
            family.add_metric((worker.name,), getattr(worker, field))
        yield family


def _worker_histograms(workers: list[WorkerStatus]) -> Iterator[Metric]:
    for field, name, meaning in _HISTOGRAMS:
        family = HistogramMetricFamily(name, meaning, labels=("worker",))
        for worker in workers:
            _add_histogram(family, (worker.name,), worker.histograms.get(field))
        yield family


def _stages(workers: list[WorkerStatus]) -> Metric:
    family = HistogramMetricFamily(
        "evascore_stage_seconds",
        "Time of scored jobs: until they are opened (queue), from then to their first micro-batch "
        "(wait), in micro-batches (compute), and until they are stored (store).",
        labels=("worker", "stage", "priority"),
    )
    for worker in workers:
        for stage, priority in itertools.product(STAGES, PRIORITY_NAMES):
            found = worker.histograms.get(stage_name(stage, priority))
            _add_histogram(family, (worker.name, stage, priority), found)
    return family


def _add_histogram(
    family: HistogramMetricFamily, labels: tuple[str, ...], found: Histogram | None
) -> None:
    """Add the histogram of a worker; one of an older release may lack it."""
    if found:
        bounds = [*(str(bound) for bound in found.bounds), "+Inf"]
        buckets = list(zip(bounds, itertools.accumulate(found.counts), strict=True))
        family.add_metric(labels, buckets, found.sum)


def _models(workers: list[WorkerStatus]) -> Metric:
    names = ("name", "fingerprint", "quantization", "dtype", "device", "backend")
    family = GaugeMetricFamily(
        "evascore_model_info",
        "The model that a worker has loaded, and the worker's release; always 1.",
        labels=("worker", "release", *names),
    )
    for worker in workers:
        if worker.model:
            values = (str(worker.model.get(name, "")) for name in names)
            family.add_metric((worker.name, worker.release or "", *values), 1)
    return family


def _micro_batch_limits(workers: list[WorkerStatus]) -> Metric:
    family = GaugeMetricFamily(
        "evascore_micro_batch_limit_bytes",
        "Most bytes of one micro-batch; halved where memory does not suffice.",
        labels=("worker",),
    )
    for worker in workers:
        family.add_metric((worker.name,), worker.batch_bytes)
    return family


def _gpus(workers: list[WorkerStatus]) -> Iterator[Metric]:
    used = GaugeMetricFamily(
        "evascore_gpu_used_bytes", "Memory of a worker's GPU in use.", labels=("worker",)
    )
    total = GaugeMetricFamily(
        "evascore_gpu_total_bytes", "Memory of a worker's GPU.", labels=("worker",)
    )
    busy = GaugeMetricFamily(
        "evascore_gpu_utilization_ratio",
        "Share of time in which a worker's GPU ran a kernel.",
        labels=("worker",),
    )
    for worker in workers:
        if worker.gpu is not None:
            used.add_metric((worker.name,), worker.gpu.used_bytes)
            total.add_metric((worker.name,), worker.gpu.total_bytes)
            if worker.gpu.utilization is not None:
                busy.add_metric((worker.name,), worker.gpu.utilization)
    yield from (used, total, busy)
