"""Collects the metrics of `GET /metrics`: requests of this process, and the state in Redis.

Each scrape reads the queue, the totals and the workers from Redis. So one target also covers
workers that no scraper can reach. No label holds a value that a client chose.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app.service.slots import ConnectionSlots
from app.service.stalls import silent_s, unstored_s
from contract.errors import BrokerUnavailable
from contract.store.batch_store import BatchStore
from contract.store.bulk_load import BulkLoad
from contract.store.dead_letters import KINDS, DeadLetter
from contract.store.job_store import JobStore
from contract.store.model_registry import ModelQueue
from contract.store.refusals import REASONS
from contract.worker_status import WorkerState, WorkerStatus

# The longest wait for a result is EVASCORE_MAX_WAIT_S, 30 s.
REQUEST_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
WORKER_STATES: tuple[WorkerState, ...] = get_args(WorkerState)
# Counters in Redis, by the first word of their names. Every outcome shows from the start, as 0:
# Prometheus does not see the first step of a counter that did not exist before.
_ENDED = (
    (
        *("jobs", "evascore_jobs", "Jobs that ended.", "outcome"),
        ("succeeded", "failed", "cancelled", "expired"),
    ),
    (
        *("batches", "evascore_bulk_ended_batches", "Batches that ended.", "status"),
        ("completed", "cancelled", "expired"),
    ),
    (
        *("lines", "evascore_bulk_ended_lines", "Lines of batches that ended.", "outcome"),
        ("completed", "failed"),
    ),
)
# Fields of a worker's status that become counters.
_COUNTED = (
    ("num_batches", "evascore_batches", "Micro-batches that a worker has scored since it started."),
    ("num_texts", "evascore_texts", "Texts that a worker has scored since it started."),
    ("num_bytes", "evascore_text_bytes", "Bytes that a worker has scored since it started."),
)
_HISTOGRAMS = (
    ("batch_texts", "evascore_batch_texts", "Texts in one micro-batch."),
    ("inference_s", "evascore_inference_seconds", "Time of one micro-batch in the model."),
)


class Metrics:
    """The metrics of one application."""

    def __init__(
        self, store: JobStore, batches: BatchStore, slots: Mapping[str, ConnectionSlots]
    ) -> None:
        """Collect what `store` and `batches` hold, and how many of the `slots` are taken."""
        self.registry = CollectorRegistry()
        taken = Gauge(
            "evascore_http_open_requests",
            "Requests that wait for a result, stream events or upload a batch.",
            ("kind",),
            registry=self.registry,
        )
        for kind, each in slots.items():
            taken.labels(kind).set_function(each.num_held)
        self.registry.register(QueueCollector(store, batches))
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "evascore_http_requests",
            "Answered requests.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "evascore_http_request_seconds",
            "Time from a request's header to its answer, including the wait for a result.",
            ("route",),
            buckets=REQUEST_BOUNDS_S,
            registry=self.registry,
        )

    def count_request(self, method: str, route: str | None, status: int, elapsed_s: float) -> None:
        """Count an answered request.

        Args:
            route: its template; None when no route matched.
        """
        known_method = method if method in METHODS else "other"
        known_route = route or "none"
        self._requests.labels(known_method, known_route, status).inc()
        self._request_seconds.labels(known_route).observe(elapsed_s)


class QueueCollector(Collector):
    """Reads Redis at each scrape; without Redis it shows only that Redis does not answer."""

    def __init__(self, store: JobStore, batches: BatchStore) -> None:
        self._store = store
        self._batches = batches

    def describe(self) -> Iterable[Metric]:
        """Describe nothing, so that registering needs no scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read Redis, then give all metrics that follow from the answers."""
        try:
            depth, totals = self._store.depth(), self._store.totals()
            bulk = self._batches.load()
            workers = self._store.worker_statuses()
            num_parked, letters = self._store.num_parked(), self._store.dead_letters()
            queues = self._store.model_queues()
        except BrokerUnavailable:
            yield _gauge("evascore_redis_up", "Whether Redis answers.", 0)
            return
        yield _gauge("evascore_redis_up", "Whether Redis answers.", 1)
        yield _gauge("evascore_queue_jobs", "Accepted jobs that have not ended.", depth.jobs)
        yield _gauge(
            "evascore_queue_bytes", "Accepted text bytes that are not scored.", depth.bytes
        )
        yield _gauge(
            "evascore_parked_jobs", "Jobs that wait for a worker of a newer release.", num_parked
        )
        yield _waiting(queues)
        yield _dead_letters(letters)
        yield from _ended({**totals, **bulk.totals})
        yield _gauge("evascore_bulk_lines", "Lines of batches that have not ended.", bulk.num_lines)
        yield _gauge(
            "evascore_bulk_bytes", "Bytes of work of batches that have not ended.", bulk.num_bytes
        )
        yield from _room(bulk)
        has_work = depth.jobs or bulk.num_batches
        yield _gauge(
            "evascore_stalled_seconds",
            "Time since a ready worker made a step while work waits; 0 while none waits.",
            silent_s(workers) if has_work else 0,
        )
        yield _gauge(
            "evascore_unstored_seconds",
            "How long the oldest result that Redis refuses has waited; 0 without one.",
            unstored_s(workers),
        )
        yield _refusals(workers)
        yield _batches_by_status(bulk)
        yield _workers_by_state(workers)
        yield _worker_speeds(workers)
        yield _worker_starts(workers)
        yield from _worker_counters(workers)
        yield from _worker_histograms(workers)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _waiting(queues: list[ModelQueue]) -> Metric:
    family = GaugeMetricFamily(
        "evascore_waiting_messages",
        "Jobs and parts of batches that no worker has fetched yet.",
        labels=("model", "fingerprint", "priority"),
    )
    for queue in queues:
        for priority in ("interactive", "bulk"):
            labels = (queue.name, queue.fingerprint, priority)
            family.add_metric(labels, getattr(queue, priority))
    return family


def _dead_letters(letters: list[DeadLetter]) -> Metric:
    family = GaugeMetricFamily(
        "evascore_dead_letters", "What could not be read and was set aside.", labels=("kind",)
    )
    kinds = [letter.kind for letter in letters]
    for kind in KINDS:
        family.add_metric((kind,), kinds.count(kind))
    return family


def _ended(totals: dict[str, int]) -> Iterator[Metric]:
    for kind, name, meaning, label, outcomes in _ENDED:
        family = CounterMetricFamily(name, meaning, labels=(label,))
        for outcome in outcomes:
            family.add_metric((outcome,), totals.get(f"{kind}_{outcome}", 0))
        yield family


def _room(bulk: BulkLoad) -> Iterator[Metric]:
    yield _gauge("evascore_redis_bytes", "Memory that Redis uses.", bulk.memory.used_bytes)
    yield _gauge(
        "evascore_redis_limit_bytes",
        "Memory of Redis, promises included, above which nothing is accepted.",
        bulk.memory.limit_bytes,
    )
    yield _gauge(
        "evascore_promised_bytes",
        "Room in Redis for the results of jobs and batches that have not ended.",
        bulk.promised_bytes,
    )


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


def _batches_by_status(bulk: BulkLoad) -> Metric:
    live = GaugeMetricFamily(
        "evascore_bulk_batches", "Batches that have not ended.", labels=("status",)
    )
    for status, count in bulk.statuses.items():
        live.add_metric((status,), count)
    return live


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
            if found := worker.histograms.get(field):
                bounds = [*(str(bound) for bound in found.bounds), "+Inf"]
                buckets = list(zip(bounds, itertools.accumulate(found.counts), strict=True))
                family.add_metric((worker.name,), buckets, found.sum)
        yield family
