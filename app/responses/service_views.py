"""Makes the JSON of `/info`, `/v1/models`, `/stats` and `/`."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from app.requests.intake import PRIORITIES
from app.responses.models import Limits
from app.responses.views import rfc3339
from app.service.components import Service
from app.service.served_models import ServedModel
from contract import __version__, keys
from contract.grammar.outputs import MAX_TOP_K, OUTPUT_NAMES
from contract.store.queue.dead_letters import DeadLetter
from contract.store.queue.model_registry import ModelQueue
from contract.worker_status import WorkerStatus

LATEST_LETTERS = 10
_SERVICE = {"name": "evascore", "version": __version__}


def index_view(links: Mapping[str, str]) -> dict[str, Any]:
    """The JSON of `/`: the service and the paths of its routes."""
    return {"service": _SERVICE, "links": dict(links)}


def info_view(service: Service) -> dict[str, Any]:
    """The JSON of `/info`: the served models and the limits of requests.

    Raises:
        BrokerUnavailable
    """
    service.workers.read_now()
    default = service.models.default()
    loaded = [worker.model for worker in service.workers.statuses() if worker.model]
    settings = (name for name in Limits.model_fields if name != "max_top_k")
    limits = {name: getattr(service.models.limits(), name) for name in settings}
    return {
        "service": _SERVICE,
        "model": default.facts if default else next(iter(loaded), None),
        "models": model_list(service.models.listed(), default)["data"],
        "outputs": OUTPUT_NAMES,
        "priorities": list(PRIORITIES),
        "limits": {**limits, "max_top_k": MAX_TOP_K},
    }


def model_list(models: Sequence[ServedModel], default: ServedModel | None) -> dict[str, Any]:
    """The JSON of `GET /v1/models`."""
    return {"object": "list", "data": [_listed(each, each == default) for each in models]}


def _listed(model: ServedModel, is_default: bool) -> dict[str, Any]:
    facts = model.facts
    return {
        "id": str(model.reference),
        "object": "model",
        "created": int(model.since),
        "owned_by": "evascore",
        "name": model.reference.name,
        "fingerprint": facts.get("fingerprint", ""),
        "is_default": is_default,
        "workers": model.num_workers,
        "revision": facts.get("revision", ""),
        "quantization": facts.get("quantization", ""),
        "dtype": facts.get("dtype", ""),
        "max_text_bytes": facts.get("max_text_bytes"),
        "window_size": facts.get("window_size"),
        "is_demo": facts.get("is_demo", False),
    }


def stats_view(service: Service) -> dict[str, Any]:
    """The JSON of `/stats`: the queue, the batches, the workers and their recent work.

    Raises:
        BrokerUnavailable
    """
    now = service.overview.read()
    depth, bulk, workers = now.depth, now.bulk, now.workers
    return {
        "queue": {
            "jobs": depth.jobs,
            "bytes": depth.bytes,
            "max_jobs": service.settings.max_queued_jobs,
            "max_bytes": service.settings.max_queued_bytes,
            "parked": now.num_parked,
            "models": [_model_queue(each) for each in now.queues],
        },
        "batches": {
            "batches": bulk.num_batches,
            "lines": bulk.num_lines,
            "bytes": bulk.num_bytes,
            "max_batches": service.settings.max_queued_batches,
            "max_bytes": service.settings.max_bulk_bytes,
            "redis_bytes": bulk.memory.used_bytes,
            "max_redis_bytes": bulk.memory.limit_bytes,
            "promised_bytes": bulk.promised_bytes,
        },
        "recent": _recent_work(workers),
        "workers": [
            {**worker.as_json(), "started_at": rfc3339(worker.started_at)} for worker in workers
        ],
        "dead_letters": _dead_letters(now.letters),
        "totals": now.totals,
    }


def _model_queue(queue: ModelQueue) -> dict[str, Any]:
    return {
        "name": queue.name or None,
        "fingerprint": None if queue.fingerprint == keys.UNBOUND else queue.fingerprint,
        "interactive": queue.interactive,
        "bulk": queue.bulk,
    }


def _dead_letters(letters: Sequence[DeadLetter]) -> dict[str, Any]:
    """The number of dead letters and the latest; a task ID opens a result, so none is shown."""
    latest = [
        {"kind": letter.kind, "reason": letter.reason, "at": rfc3339(letter.at)}
        for letter in reversed(letters[-LATEST_LETTERS:])
    ]
    return {"count": len(letters), "latest": latest}


def _recent_work(workers: Sequence[WorkerStatus]) -> dict[str, Any]:
    """Figures of the last micro-batches and interactive jobs of all workers; null without any."""
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


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 1) if values else None


def _percentile(ascending: list[float], share: float) -> float | None:
    """The smallest value that at least `share` of all values do not exceed."""
    return ascending[ceil(share * len(ascending)) - 1] if ascending else None
