"""Collects the metrics of `GET /metrics`: requests of this process, and the state in Redis.

Each scrape reads the queue, the totals and the workers from Redis. So one target also covers
workers that no scraper can reach. No label holds a value that a client chose.
"""

import itertools
import platform
import time
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
from contract import __version__
from contract.errors import BY_CODE, BrokerUnavailable, ClientError
from contract.histogram import Histogram as Counted
from contract.service_clock import CLOCK
from contract.store.admission.bulk_load import BulkLoad
from contract.store.admission.memory import Memory
from contract.store.connection.persistence import Persistence
from contract.store.connection.refusals import REASONS
from contract.store.jobs.endings import FAILED_WITH, TEXT_FAILED_WITH
from contract.store.overview import Overview, OverviewReader
from contract.store.queue.dead_letters import KINDS, DeadLetter
from contract.store.queue.leases import CAUSES, REDELIVERED
from contract.store.queue.model_registry import PRIORITY_NAMES, ModelQueue
from contract.worker_status import STAGES, WorkerState, WorkerStatus, stage_name

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


class Metrics:
    """The metrics of one application."""

    def __init__(
        self,
        overview: OverviewReader,
        slots: Mapping[str, ConnectionSlots],
        codes: Iterable[str],
    ) -> None:
        """Collect what `overview` reads, and how many of the `slots` are taken.

        Args:
            codes: of the errors that a request may be answered with.
        """
        self.registry = CollectorRegistry()
        self._taken = Gauge(
            "evascore_http_open_requests",
            "Requests that wait for a result, stream events or upload a batch; and connections, "
            "except those of trusted proxies.",
            ("kind",),
            registry=self.registry,
        )
        for kind, each in slots.items():
            self.show_slots(kind, each)
        build = Gauge(
            "evascore_build_info",
            "The release of the web server; always 1.",
            ("version", "python"),
            registry=self.registry,
        )
        build.labels(__version__, platform.python_version()).set(1)
        self.registry.register(QueueCollector(overview))
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "evascore_http_requests",
            "Answered requests.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._problems = Counter(
            "evascore_http_problems",
            "Refused and failed requests, by the code of the error.",
            ("code",),
            registry=self.registry,
        )
        for code in codes:
            self._problems.labels(code)
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._request_seconds = Histogram(
            "evascore_http_request_seconds",
            "Time from a request's header to its answer, including the wait for a result.",
            ("route",),
            buckets=REQUEST_BOUNDS_S,
            registry=self.registry,
        )

    def show_slots(self, kind: str, slots: ConnectionSlots) -> None:
        """Show at each scrape how many of `slots` are taken."""
        self._taken.labels(kind).set_function(slots.num_held)

    def count_problem(self, code: str) -> None:
        """Count an error that a request was answered with; `code` is one of ours."""
        self._problems.labels(code).inc()

    def count_request(self, method: str, route: str | None, status: int, elapsed_s: float) -> None:
        """Count an answered request.

        Args:
            route: its template; None when no route matched.
        """
        kind = method if method in METHODS else "other", route or "none", status
        if kind not in self._series:
            # Finding them by their labels takes longer than counting.
            self._series[kind] = self._requests.labels(*kind), self._request_seconds.labels(kind[1])
        requests, seconds = self._series[kind]
        requests.inc()
        seconds.observe(elapsed_s)


class QueueCollector(Collector):
    """Reads Redis at each scrape; without Redis it shows only that Redis does not answer."""

    def __init__(self, overview: OverviewReader) -> None:
        self._overview = overview

    def describe(self) -> Iterable[Metric]:
        """Describe nothing, so that registering needs no scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read Redis, then give all metrics that follow from the answers."""
        began_at = time.perf_counter()
        try:
            now = self._overview.read()
        except BrokerUnavailable:
            yield _gauge("evascore_redis_up", "Whether Redis answers.", 0)
            return
        read_s = time.perf_counter() - began_at
        yield _gauge("evascore_redis_up", "Whether Redis answers.", 1)
        yield _gauge("evascore_redis_writable", "Whether Redis takes writes.", now.is_writable)
        yield _gauge(
            "evascore_redis_read_seconds",
            "Time of the two round trips in which this scrape read Redis.",
            read_s,
        )
        yield from _queue(now)
        yield from _outcomes(now)
        yield from _batches(now.bulk)
        yield from _room(now.bulk)
        yield from _files(now.persistence, now.bulk.memory)
        yield from _progress(now)
        yield from _workers(now.workers)


def _queue(now: Overview) -> Iterator[Metric]:
    depth = now.depth
    yield _gauge("evascore_queue_jobs", "Accepted jobs that have not ended.", depth.jobs)
    yield _gauge("evascore_queue_bytes", "Accepted text bytes that are not scored.", depth.bytes)
    yield _gauge(
        "evascore_parked_jobs", "Jobs that wait for a worker of a newer release.", now.num_parked
    )
    yield _waiting(now.queues)
    yield _oldest(now.queues)
    yield _dead_letters(now.letters)


def _outcomes(now: Overview) -> Iterator[Metric]:
    totals = now.totals
    yield from _ended({**totals, **now.bulk.totals})
    yield _failures(totals)
    yield _failed_texts(totals)
    yield _redelivered(totals)
    yield CounterMetricFamily(
        "evascore_worker_deaths",
        "Workers that died while they scored.",
        value=totals.get("deaths_while_scoring", 0),
    )
    yield CounterMetricFamily(
        "evascore_worker_restarts",
        "Starts of workers that had started three times before, each within an hour.",
        value=totals.get("worker_restarts", 0),
    )
    yield _gauge(
        "evascore_model_drifted",
        "Whether a worker stopped because its model gave a wrong score, in the last hour and "
        "since the last worker became ready.",
        now.has_model_drifted,
    )


def _batches(bulk: BulkLoad) -> Iterator[Metric]:
    yield _gauge("evascore_bulk_lines", "Lines of batches that have not ended.", bulk.num_lines)
    yield _gauge(
        "evascore_bulk_bytes", "Bytes of work of batches that have not ended.", bulk.num_bytes
    )
    yield _batches_by_status(bulk)


def _progress(now: Overview) -> Iterator[Metric]:
    has_work = now.depth.jobs or now.bulk.num_batches
    yield _gauge(
        "evascore_stalled_seconds",
        "Time since any ready worker made a step while work waits; 0 while none waits.",
        silent_s(now.workers) if has_work else 0,
    )
    yield _gauge(
        "evascore_unstored_seconds",
        "How long the oldest result that Redis refuses has waited; 0 without one.",
        unstored_s(now.workers),
    )
    yield _silences(now.workers)
    yield _refusals(now.workers)


def _workers(workers: list[WorkerStatus]) -> Iterator[Metric]:
    yield _workers_by_state(workers)
    yield _worker_speeds(workers)
    yield _worker_starts(workers)
    yield from _worker_counters(workers)
    yield from _worker_histograms(workers)
    yield _stages(workers)
    yield _models(workers)
    yield _pass_sizes(workers)
    yield from _gpus(workers)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _waiting(queues: list[ModelQueue]) -> Metric:
    family = GaugeMetricFamily(
        "evascore_waiting_messages",
        "Jobs and parts of batches that no worker has fetched yet.",
        labels=("model", "fingerprint", "priority"),
    )
    for queue in queues:
        for priority in PRIORITY_NAMES:
            labels = (queue.name, queue.fingerprint, priority)
            family.add_metric(labels, getattr(queue, priority))
    return family


def _oldest(queues: list[ModelQueue]) -> Metric:
    family = GaugeMetricFamily(
        "evascore_oldest_waiting_seconds",
        "Age of the oldest job or part of a batch that no worker has fetched; 0 without one.",
        labels=("priority",),
    )
    now = CLOCK.now()
    for priority in PRIORITY_NAMES:
        ages_s = [now - each.oldest_at[priority] for each in queues if priority in each.oldest_at]
        family.add_metric((priority,), max([0.0, *ages_s]))
    return family


def _failures(totals: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(
        "evascore_failed_jobs", "Jobs that failed, by the code of their error.", labels=("code",)
    )
    for code in BY_CODE:
        family.add_metric((code,), totals.get(FAILED_WITH + code, 0))
    return family


def _failed_texts(totals: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(
        "evascore_failed_texts",
        "Texts that failed alone or with their job, by the code of the error; without those that "
        "their client must change.",
        labels=("code",),
    )
    for code, error in BY_CODE.items():
        if not issubclass(error, ClientError):
            family.add_metric((code,), totals.get(TEXT_FAILED_WITH + code, 0))
    return family


def _redelivered(totals: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(
        "evascore_redelivered_jobs",
        "Jobs that were put back: their worker was lost, or returned them when it stopped or lost "
        "Redis.",
        labels=("cause",),
    )
    for cause in CAUSES:
        family.add_metric((cause,), totals.get(REDELIVERED + cause, 0))
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
        "evascore_redis_resident_bytes",
        "Memory of the process of Redis, fragmentation included.",
        bulk.memory.rss_bytes,
    )
    yield _gauge(
        "evascore_redis_maxmemory_bytes",
        "Limit of Redis itself; 0 without one.",
        bulk.memory.maxmemory_bytes,
    )
    yield _gauge(
        "evascore_promised_bytes",
        "Room in Redis for the results of jobs and batches that have not ended.",
        bulk.promised_bytes,
    )


def _files(persistence: Persistence, memory: Memory) -> Iterator[Metric]:
    ok = GaugeMetricFamily(
        "evascore_redis_persistence_ok",
        "Whether the append-only file is on, was last written and was last rewritten, and whether "
        "Redis evicts no keys.",
        labels=("step",),
    )
    ok.add_metric(("on",), persistence.is_on)
    ok.add_metric(("write",), persistence.is_write_ok)
    ok.add_metric(("rewrite",), persistence.is_rewrite_ok)
    ok.add_metric(("eviction",), not memory.evicts)
    yield ok
    yield _gauge(
        "evascore_redis_file_bytes", "Size of the append-only file.", persistence.num_bytes
    )
    if persistence.backup_at is not None:
        yield _gauge(
            "evascore_last_backup_timestamp_seconds",
            "Unix time of the last backup of Redis; absent before the first.",
            persistence.backup_at,
        )


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
    family: HistogramMetricFamily, labels: tuple[str, ...], found: Counted | None
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


def _pass_sizes(workers: list[WorkerStatus]) -> Metric:
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
