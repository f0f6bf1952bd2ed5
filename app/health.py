"""The routes that tell how the service is: live, ready, what it serves, how busy it is."""

from typing import Any

from flask import Blueprint, Response

from app import __version__
from app.admission import worker_statuses
from app.intake import PRIORITIES
from app.responses import json_response
from app.schemas import MAX_TOP_K, OUTPUTS
from app.service import service
from contract.errors import WorkerUnavailable

routes = Blueprint("health", __name__)

WARM_STATES = frozenset({"ready", "busy"})
_LIMITS = (
    "max_text_bytes",
    "max_items",
    "max_continuations",
    "max_body_bytes",
    "max_job_bytes",
    "max_queued_bytes",
    "max_queued_jobs",
    "deadline_s",
    "max_deadline_s",
    "max_wait_s",
    "result_ttl_s",
)


@routes.get("/healthz")
def live() -> Response:
    """Whether this process answers; Redis and workers are not asked."""
    return json_response({"status": "ok"})


@routes.get("/readyz")
def ready() -> Response:
    """Whether a text sent now would be scored: Redis answers and a worker is warm."""
    if not any(status["state"] in WARM_STATES for status in _workers()):
        raise WorkerUnavailable("No worker is warm; one that starts loads its model first.")
    return json_response({"status": "ok"})


@routes.get("/info")
def info() -> Response:
    """Which model scores, and what may be asked of it."""
    models = [status["model"] for status in _workers() if status.get("model")]
    settings = service().settings
    return json_response(
        {
            "service": {"name": "evascore", "version": __version__},
            "model": models[0] if models else None,
            "outputs": OUTPUTS,
            "priorities": list(PRIORITIES),
            "limits": {
                **{name: getattr(settings, name) for name in _LIMITS},
                "max_top_k": MAX_TOP_K,
            },
        }
    )


@routes.get("/stats")
def stats() -> Response:
    """How much waits, who works on it, and what has been done."""
    parts = service()
    with parts.guard.calling():
        depth, totals = parts.store.depth(), parts.store.totals()
    return json_response(
        {
            "queue": {
                "jobs": depth.jobs,
                "bytes": depth.bytes,
                "max_jobs": parts.settings.max_queued_jobs,
                "max_bytes": parts.settings.max_queued_bytes,
            },
            "workers": _workers(),
            "totals": totals,
        }
    )


def _workers() -> list[dict[str, Any]]:
    with service().guard.calling():
        return worker_statuses(service().store)
