"""The pages for people: a text as a heat map, the service's state, Swagger UI on our description.

They are rendered here and brought to life by the scripts in `static/`, which talk to the same
routes as any client. Nothing is loaded from elsewhere, and the browser is told to refuse it.
"""

from typing import Any

from flask import Blueprint, Response, render_template, request, url_for
from flask_swagger_ui import get_swaggerui_blueprint

from app.openapi.operation import operation
from app.responses.json import json_response
from app.responses.models import Index
from app.responses.problems import DEFAULT_RETRY_AFTER_S
from app.responses.service_views import index_view, stats_view
from app.service.components import service
from contract.errors import BrokerUnavailable

DOCS_PATH = "/docs"

routes = Blueprint("pages", __name__)

_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@routes.get("/")
@operation({200: Index})
def home() -> Response:
    """Where things are; a browser, which prefers HTML, gets the page that scores a text."""
    accepted = request.accept_mimetypes
    if accepted["text/html"] > accepted["application/json"]:
        # Redis is not asked: the page opens, and says what is wrong, whatever is.
        response = _page("score.html", max_text_bytes=service().settings.max_text_bytes)
    else:
        response = json_response(_index())
    response.vary.add("Accept")
    return response


@routes.get("/status")
def status() -> Response:
    """The service's state as it is now; a script keeps it up to date."""
    try:
        stats = stats_view(service())
    except BrokerUnavailable:
        response = _page("status.html", status=503, stats=None)
        response.headers["Retry-After"] = str(DEFAULT_RETRY_AFTER_S)
        return response
    return _page("status.html", stats=stats)


def docs_routes() -> Blueprint:
    """Swagger UI; it loads nothing from elsewhere, the validator's badge included."""
    return get_swaggerui_blueprint(
        DOCS_PATH, "/openapi.json", config={"app_name": "evascore", "validatorUrl": None}
    )


def _index() -> dict[str, Any]:
    endpoints = {
        "score": "jobs.submit",
        "info": "health.info",
        "stats": "health.stats",
        "status": "pages.status",
        "description": "openapi.description",
        "metrics": "metrics.metrics",
        "docs": "swagger_ui.show",
    }
    return index_view({name: url_for(endpoint) for name, endpoint in endpoints.items()})


def _page(template: str, *, status: int = 200, **values: Any) -> Response:
    return Response(render_template(template, **values), status, headers=_HEADERS)
