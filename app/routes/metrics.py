"""Serves `GET /metrics` for Prometheus."""

from flask import Blueprint, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from app.openapi.operation import operation
from app.service.components import service

routes = Blueprint("metrics", __name__)


@routes.get("/metrics")
@operation({200: None})
def metrics() -> Response:
    """Show the metrics in the text format of Prometheus; it works without Redis too."""
    page = generate_latest(service().metrics.registry)
    return Response(page, content_type=CONTENT_TYPE_PLAIN_0_0_4)
