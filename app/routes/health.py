"""The routes that tell how the service is: live, ready, what it serves, how busy it is."""

from typing import Any

from flask import Blueprint, Response

from app.openapi.operation import operation
from app.requests.intake import PRIORITIES
from app.responses.json import json_response
from app.responses.models import Health, Info, Limits, Stats
from app.responses.stats import read_stats
from app.service.parts import service
from contract import __version__, keys
from contract.errors import BrokerUnavailable, ModelDrifted, WorkerUnavailable
from contract.grammar.outputs import MAX_TOP_K, OUTPUT_NAMES
from contract.store.job_store import WARM_STATES
from contract.worker_status import worker_statuses

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
    if not any(status["state"] in WARM_STATES for status in workers()):
        with service().guard.calling():
            has_drifted = service().store.client.exists(keys.MODEL_DRIFTED)
        if has_drifted:
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
    models = [status["model"] for status in workers() if status.get("model")]
    settings = service().settings
    return json_response(
        {
            "service": {"name": "evascore", "version": __version__},
            "model": models[0] if models else None,
            "outputs": OUTPUT_NAMES,
            "priorities": list(PRIORITIES),
            "limits": {name: getattr(settings, name, MAX_TOP_K) for name in Limits.model_fields},
        }
    )


@routes.get("/stats")
@operation({200: Stats}, BrokerUnavailable)
def stats() -> Response:
    """How much waits, who works on it, and what has been done."""
    return json_response(read_stats(service()))


def workers() -> list[dict[str, Any]]:
    """What each living worker tells of itself. Raises: BrokerUnavailable."""
    with service().guard.calling():
        return worker_statuses(service().store)
