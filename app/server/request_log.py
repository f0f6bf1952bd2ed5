"""Logs and counts each request, and sets the headers that every answer carries."""

import logging
import secrets
import time
from contextlib import suppress
from http import HTTPMethod
from typing import Any

from flask import Flask, Response, g, has_request_context, request
from flask.globals import request_ctx
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import RequestRedirect

from app.requests.clients import client_of
from app.responses.problems import STATUS_BY_CODE
from app.routes import assets
from app.service import audit
from app.service.components import service
from app.service.metrics.registry import METHODS
from app.service.traces import begin_span, end_span
from contract.logs import get_logger
from contract.queue_messages import REQUEST_ID

log = get_logger(__name__)

# Machines ask for these every few seconds, and a browser for many at a time. A good answer is
# logged at DEBUG only.
QUIET = ("/healthz", "/readyz", "/metrics", "/stats", assets.ROUTE)

# Balancers ask for this one every few seconds, also while it answers 503. After the first time, the
# same answer is logged at DEBUG only.
PROBED = "/readyz"

# Refusals that are about an ID which was issued. Any other refused ID may be anything, even a text.
_OF_ISSUED_IDS = ("job_ended", "job_gone")

# docs/security.md lists them.
AUDITED = ("task_id", "batch_id", "outcome", "work_bytes")


def register(app: Flask) -> None:
    """Name, time, log and count every request of `app`."""
    app.before_request(_begin)
    app.after_request(RequestLog().end)


def _begin() -> None:
    g.began_at = time.perf_counter()
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    tracing, route = service().tracing, _route()
    if tracing is not None and route not in QUIET:
        begin_span(tracing, request.method if request.method in METHODS else "other", route)


def _logged_method() -> str:
    """The method, or `other` for one that HTTP does not define: it may be the rest of a text."""
    return request.method if request.method in HTTPMethod.__members__ else "other"


def _route() -> str | None:
    """The route's template, not the path, and no query: it may hold the custom_id of a raw body."""
    return request.url_rule.rule if request.url_rule else None


def _route_of_refusal() -> str | None:
    """The route that was asked for with a wrong method, or without its slash; None if none was."""
    refusal = request.routing_exception
    if not isinstance(refusal, MethodNotAllowed | RequestRedirect):
        return None
    adapter = request_ctx.url_adapter
    assert adapter is not None
    with suppress(HTTPException):
        if isinstance(refusal, MethodNotAllowed):
            method = next(iter(refusal.valid_methods or ()), None)
            return adapter.match(method=method, return_rule=True)[0].rule
        return adapter.match(path_info=f"{request.path}/", return_rule=True)[0].rule
    return None


def current_request_id(_task_id: Any) -> str:
    """The ID of the request that is being served; '' outside of one."""
    return str(g.get("request_id", "")) if has_request_context() else ""


class RequestLog:
    """Logs each answer, and remembers the last one of the probe so as not to repeat it."""

    def __init__(self) -> None:
        """Start as if the probe had answered 200, which is not logged."""
        self._last_probe: tuple[int, Any] = 200, None

    def end(self, response: Response) -> Response:
        """Log and count the request, and set the headers that every answer carries."""
        elapsed_s = time.perf_counter() - g.began_at
        response.headers["X-Request-Id"] = g.request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        route = _route()
        fields = _audited(response)
        outcome = fields.get("outcome")
        log.log(
            self._level(route, response.status_code, outcome),
            "request_served",
            request_id=g.request_id,
            method=_logged_method(),
            route=route or _route_of_refusal(),
            status=response.status_code,
            client=client_of(request),
            **fields,
            body_bytes=g.get("body_bytes", 0),
            answer_bytes=response.content_length,
            time_ms=round(elapsed_s * 1000, 3),
        )
        end_span(response, fields.get("task_id"), outcome)
        metrics = service().metrics
        metrics.count_request(request.method, route, response.status_code, elapsed_s)
        if response.status_code >= 400 and outcome in STATUS_BY_CODE:
            metrics.count_problem(outcome)
        return response

    def _level(self, route: str | None, status: int, outcome: Any) -> int:
        if route == PROBED:
            before, self._last_probe = self._last_probe, (status, outcome)
            return logging.DEBUG if before == self._last_probe else logging.INFO
        return logging.DEBUG if route in QUIET and status == 200 else logging.INFO


def _audited(response: Response) -> dict[str, Any]:
    """What the request was about and what came of it: IDs, outcome, bytes of work."""
    fields = audit.noted()
    is_answer = response.status_code < 400 and request.method != "OPTIONS"
    if is_answer or fields.get("outcome") in _OF_ISSUED_IDS:
        fields = {**(request.view_args or {}), **fields}
    return {name: fields[name] for name in AUDITED if name in fields}
