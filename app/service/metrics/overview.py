"""Makes the metrics of the state in Redis: queue, outcomes, batches, memory and files.

Each scrape reads them from Redis. So one target also covers workers that no scraper can reach.
"""

import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app.service.metrics.workers import worker_metrics
from app.service.stalls import silent_s, unstored_s
from contract.errors import BY_CODE, BrokerUnavailable, ClientError
from contract.logs import get_logger
from contract.service_clock import CLOCK
from contract.store.admission.bulk_load import BulkLoad
from contract.store.admission.memory import Memory
from contract.store.connection.persistence import Persistence
from contract.store.jobs.endings import FAILED_WITH, TEXT_FAILED_WITH
from contract.store.overview import Overview, OverviewReader
from contract.store.queue.dead_letters import KINDS, DeadLetter
from contract.store.queue.leases import CAUSES, REDELIVERED
from contract.store.queue.model_registry import PRIORITY_NAMES, ModelQueue

log = get_logger(__name__)

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


class OverviewCollector(Collector):
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
        except BrokerUnavailable as error:
            # Such as a wrong password or an expired certificate; no text of a user is in these
            # commands. Without a cause, Redis was silent a moment ago and was not asked again.
            log.warning("redis_not_read", error=str(error), cause=str(error.__cause__ or ""))
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
        yield from worker_metrics(now.workers, now.lost_workers)


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
            "Unix time of the last backup of Redis; 0 if none succeeded, absent if none was tried.",
            persistence.backup_at,
        )


def _batches_by_status(bulk: BulkLoad) -> Metric:
    live = GaugeMetricFamily(
        "evascore_bulk_batches", "Batches that have not ended.", labels=("status",)
    )
    for status, count in bulk.statuses.items():
        live.add_metric((status,), count)
    return live
