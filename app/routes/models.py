"""Serves `GET /v1/models`: the models that requests can ask for."""

from flask import Blueprint, Response

from app.openapi.operation import operation
from app.responses.json import json_response
from app.responses.models import ModelList
from app.responses.service_views import model_list
from app.service.components import service
from contract.errors import BrokerUnavailable

routes = Blueprint("models", __name__)


@routes.get("/v1/models")
@operation({200: ModelList}, BrokerUnavailable)
def list_models() -> Response:
    """List the models that workers serve now."""
    service().workers.read_now()
    models = service().models
    return json_response(model_list(models.listed(), models.default()))
