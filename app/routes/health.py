"""The routes that tell how the service is: live, ready, what it serves, how busy it is."""

from flask import Blueprint, Response

from app import __version__
from app.openapi.operation import operation
from app.requests.intake import PRIORITIES
from app.requests.models import MAX_TOP_K, OUTPUTS
from app.responses.json import json_response
from app.responses.models import Health, Info, Limits, Stats
from app.responses.stats import read_stats
from app.service.parts import service
from contract.errors import BrokerUnavailable, ModelDrifted, WorkerUnavailable

routes = Blueprint("health", __name__)


@routes.get("/healthz")
@operation({200: Health})
def live() -> Response:
    """Whether this process answers; Redis and workers are not asked."""
    return json_response({"status": "ok"})


@routes.get("/readyz")
@operation({200: Health}, WorkerUnavailable, ModelDrifted, BrokerUnavailable)
def ready() -> Response:
    """Whether a text sent now would be scored: Redis answers and a worker is warm."""
    store = service().store
    if not any(status.is_warm for status in store.worker_statuses()):
        if store.has_model_drifted():
            raise ModelDrifted(
                "The model did not give a fixed text the score that it must, so its worker stopped;"
                " the worker's log has the figures and what to do."
            )
        raise WorkerUnavailable("No worker is warm; one that starts loads its model first.")
    return json_response({"status": "ok"})


@routes.get("/info")
@operation({200: Info}, BrokerUnavailable)
def info() -> Response:
    """Which model scores, and what may be asked of it."""
    models = [worker.model for worker in service().store.worker_statuses() if worker.model]
    settings = service().settings
    return json_response(
        {
            "service": {"name": "evascore", "version": __version__},
            "model": models[0] if models else None,
            "outputs": OUTPUTS,
            "priorities": list(PRIORITIES),
            "limits": {name: getattr(settings, name, MAX_TOP_K) for name in Limits.model_fields},
        }
    )


@routes.get("/stats")
@operation({200: Stats}, BrokerUnavailable)
def stats() -> Response:
    """How much waits, who works on it, and what has been done."""
    return json_response(read_stats(service()))
