"""Serves the description of the API at `/openapi.json`."""

from flask import Blueprint, Response, current_app, request

from app.openapi.document import EXTENSION, Description
from app.responses.json import json_response
from app.service.components import service

routes = Blueprint("openapi", __name__)


@routes.get("/openapi.json")
def description() -> Response:
    """Describe the API in OpenAPI 3.1."""
    models = service().models.names() if service().models.listed() else []
    described: Description = current_app.extensions[EXTENSION]
    return json_response(described.read(service().models.limits(), models, request.script_root))
