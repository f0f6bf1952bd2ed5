"""Serves the description of the API at `/openapi.json`."""

from contextlib import suppress

from flask import Blueprint, Response, current_app, request

from app.openapi.document import describe
from app.responses.json import json_response
from app.service.components import service
from app.service.workers import served_models
from contract.errors import BrokerUnavailable, WorkerUnavailable

routes = Blueprint("openapi", __name__)


@routes.get("/openapi.json")
def description() -> Response:
    """Describe the API in OpenAPI 3.1."""
    models: list[str] = []
    with suppress(BrokerUnavailable, WorkerUnavailable):
        models = served_models(service().jobs)
    return json_response(
        describe(current_app, service().workers.limits(), models, request.script_root)
    )
