"""How busy the service is, as `/stats` tells it to programs and `/status` to people."""

from math import ceil
from typing import Any

from app.responses.views import rfc3339
from app.service.parts import Service
from contract.worker_status import WorkerStatus


def read_stats(parts: Service) -> dict[str, Any]:
    """Queue, workers, their recent work and totals.

    Raises:
        BrokerUnavailable: Redis does not answer.
    """
    depth, totals, bulk = parts.store.depth(), parts.store.totals(), parts.batches.load()
    workers = parts.store.worker_statuses()
    return {
        "queue": {
            "jobs": depth.jobs,
            "bytes": depth.bytes,
            "max_jobs": parts.settings.max_queued_jobs,
            "max_bytes": parts.settings.max_queued_bytes,
        },
        "batches": {
            "batches": len(bulk.batches),
            "lines": bulk.num_lines,
            "bytes": bulk.num_bytes,
            "max_bytes": parts.settings.max_bulk_bytes,
            "redis_bytes": bulk.redis_bytes,
            "max_redis_bytes": bulk.max_redis_bytes,
        },
        "recent": recent_work(workers),
        "workers": [{**w.as_json(), "started_at": rfc3339(w.started_at)} for w in workers],
        "totals": totals,
    }


def recent_work(workers: list[WorkerStatus]) -> dict[str, Any]:
    """Figures over the last batches and interactive jobs of all workers; null without any."""
    latencies_ms = sorted(ms for worker in workers for ms in worker.recent_latencies_ms)
    batches = [batch for worker in workers for batch in worker.recent_batches]
    texts, num_bytes, compute_ms = zip(*batches, strict=True) if batches else ((), (), ())
    return {
        "bytes_per_s": sum(worker.bytes_per_s or 0 for worker in workers) or None,
        "num_batches": len(batches),
        "mean_batch_texts": _mean(texts),
        "mean_batch_bytes": _mean(num_bytes),
        "mean_batch_ms": _mean(compute_ms),
        "num_latencies": len(latencies_ms),
        "latency_p50_ms": _percentile(latencies_ms, 0.5),
        "latency_p95_ms": _percentile(latencies_ms, 0.95),
    }


def _mean(values: tuple[float, ...]) -> float | None:
    return round(sum(values) / len(values), 1) if values else None


def _percentile(ascending: list[float], share: float) -> float | None:
    """The smallest value that at least `share` of all values do not exceed."""
    return ascending[ceil(share * len(ascending)) - 1] if ascending else None
