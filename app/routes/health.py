"""Routes that tell the state of the service: alive, ready, model and limits, load."""

from flask import Blueprint, Response

from app.openapi.operation import operation
from app.responses.json import json_response
from app.responses.models import Health, Info, Readiness, Stats
from app.responses.service_views import info_view, stats_view
from app.service.components import service
from app.service.workers import check_ready
from contract.errors import BrokerUnavailable, ModelDrifted, Stalled, WorkerUnavailable

routes = Blueprint("health", __name__)


@routes.get("/healthz")
@operation({200: Health})
def live() -> Response:
    """Check that this process answers; Redis and the workers are not asked."""
    return json_response({"status": "ok"})


@routes.get("/readyz")
@operation({200: Readiness}, WorkerUnavailable, ModelDrifted, Stalled, BrokerUnavailable)
def ready() -> Response:
    """Check that texts are scored: Redis takes writes, and a worker is ready and makes progress."""
    components = service()
    jobs, batches = components.jobs, components.batches
    num_ready = check_ready(
        jobs,
        lambda: bool(jobs.depth().jobs or batches.load().num_batches),
        max_silent_s=components.settings.micro_batch_timeout_s,
    )
    return json_response({"status": "ok", "ready_workers": num_ready})


@routes.get("/info")
@operation({200: Info}, BrokerUnavailable)
def info() -> Response:
    """Show the loaded model and the limits of requests."""
    return json_response(info_view(service()))


@routes.get("/stats")
@operation({200: Stats}, BrokerUnavailable)
def stats() -> Response:
    """Show the queue, the batches, the workers and their recent work."""
    return json_response(stats_view(service()))
