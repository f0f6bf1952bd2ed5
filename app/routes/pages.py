"""Serves the pages for people: scores as a heat map, and the status page.

The scripts in `static/` call the same routes as any client. Nothing is loaded from other servers,
and the headers tell the browser to refuse it.
"""

from typing import Any

from flask import Blueprint, Flask, Response, render_template, request, url_for
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from app.openapi.operation import operation
from app.responses.json import json_response
from app.responses.models import Index
from app.responses.problems import DEFAULT_RETRY_AFTER_S, answer_http, headers_of, problem_of
from app.responses.service_views import index_view, stats_view
from app.service import audit
from app.service.components import service
from contract.errors import BrokerUnavailable

routes = Blueprint("pages", __name__)

CONTENT_SECURITY_POLICY = "; ".join(
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
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def page(template: str, *, status: int = 200, **values: Any) -> Response:
    """An HTML page, with the headers that confine it."""
    html = render_template(template, needs_key=_needs_key(), **values)
    return Response(html, status, headers=_HEADERS)


@routes.get("/")
@operation({200: Index})
def home() -> Response:
    """List the routes; a client that prefers HTML gets the page that scores a text."""
    if _prefers_html():
        # The page opens without Redis, and then says what is wrong.
        response = page("score.html", max_windowed_bytes=service().settings.max_windowed_bytes)
    else:
        response = json_response(_index())
    response.vary.add("Accept")
    return response


@routes.get("/status")
def status() -> Response:
    """Show the state of the service; a script keeps it up to date.

    Where keys are needed the page itself shows no figures: the script asks for a key.
    """
    if _needs_key():
        return page("status.html", stats=None)
    try:
        stats = stats_view(service())
    except BrokerUnavailable:
        response = page("status.html", status=503, stats=None)
        response.headers["Retry-After"] = str(DEFAULT_RETRY_AFTER_S)
        return response
    return page("status.html", stats=stats)


def register_error_pages(app: Flask) -> None:
    """Answer a wrong address with a page, where a browser asks."""
    for error in (NotFound, MethodNotAllowed):
        app.register_error_handler(error, _wrong_address)


def _wrong_address(error: HTTPException) -> Response:
    if _prefers_html():
        answer = problem_of(error)
        audit.note(outcome=answer["type"])
        response = page("wrong_address.html", status=answer["status"], detail=answer["detail"])
        response.headers.update(headers_of(error))
    else:
        response = answer_http(error)
    response.vary.add("Accept")
    return response


def _prefers_html() -> bool:
    accepted = request.accept_mimetypes
    return accepted["text/html"] > accepted["application/json"]


def _needs_key() -> bool:
    return service().settings.auth == "keys"


def _index() -> dict[str, Any]:
    endpoints = {
        "score": "jobs.submit",
        "info": "health.info",
        "stats": "health.stats",
        "status": "pages.status",
        "description": "openapi.description",
        "metrics": "metrics.metrics",
        "docs": "docs.show",
    }
    return index_view({name: url_for(endpoint) for name, endpoint in endpoints.items()})
