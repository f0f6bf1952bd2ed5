"""Turns errors into RFC 9457 problem objects, and holds the one table of status codes."""

import traceback
from collections.abc import Iterable
from http import HTTPMethod, HTTPStatus
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from app.responses.json import json_response
from app.service import audit
from contract.errors import ServiceError, error_body
from contract.logs import get_logger

log = get_logger(__name__)

# The `error` of a failed job has the status that the same error would have as an answer.
STATUS_BY_CODE = {
    "service_error": 500,
    "bad_request": 400,
    "malformed_body": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "origin_not_allowed": 403,
    "job_not_found": 404,
    "model_not_found": 404,
    "job_ended": 409,
    "job_cancelled": 409,
    "job_gone": 410,
    "text_too_large": 413,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "misdirected_request": 421,
    "invalid_request": 422,
    "empty_text": 422,
    "idempotency_key_reused": 422,
    "model_error": 500,
    "scoring_failed": 500,
    "poison_job": 500,
    "capacity": 503,
    "quota_exceeded": 429,
    "overloaded": 503,
    "job_expired": 503,
    "dependency": 503,
    "broker_unavailable": 503,
    "worker_unavailable": 503,
    "model_drifted": 503,
    "stalled": 503,
    "job_lost": 503,
    "job_unreadable": 503,
    "result_not_stored": 503,
    "model_gone": 503,
    "out_of_memory": 503,
    # These are HTTP's own; no error class of ours stands behind them.
    "route_not_found": 404,
    "method_not_allowed": 405,
    # Not 414: a request line is only that long by mistake, and 400 says so.
    "uri_too_long": 400,
    "expectation_failed": 417,
    "header_too_large": 431,
    "internal_error": 500,
    "unsupported_transfer_coding": 501,
}
DEFAULT_RETRY_AFTER_S = 2
_HTTP_PROBLEMS = {
    400: ("bad_request", "The request is not valid HTTP; check its header fields."),
    404: ("route_not_found", "There is no such route; /docs lists them all."),
    405: (
        "method_not_allowed",
        "This route does not accept the method; the Allow header lists those that it accepts.",
    ),
    414: ("uri_too_long", "The request line is too long; send text in the body."),
    417: ("expectation_failed", "Send no Expect header, or Expect: 100-continue."),
    431: (
        "header_too_large",
        "There are too many header fields, or they are too long; send fewer or shorter ones.",
    ),
    500: ("internal_error", "evascore failed on this request; report it with its request_id."),
    501: ("unsupported_transfer_coding", "Send the body with its length, or chunked."),
}


def problem(body: dict[str, Any]) -> dict[str, Any]:
    """The problem object of an error in the form in which it travels through Redis.

    Args:
        body: `code`, `message`, `retryable` and details, from `contract.errors.error_body`.
    """
    code = body["code"]
    details = {k: v for k, v in body.items() if k not in ("code", "message", "retryable")}
    return {
        "type": code,
        "title": code.replace("_", " ").capitalize(),
        "status": STATUS_BY_CODE.get(code, 500),
        "detail": body["message"],
        "retryable": body["retryable"],
        **details,
    }


def register_error_handlers(app: Flask) -> None:
    """Make every error of `app` an `application/problem+json` answer."""
    app.register_error_handler(ServiceError, _answer)
    app.register_error_handler(HTTPException, answer_http)
    app.register_error_handler(Exception, _answer_bug)


def _answer(error: ServiceError) -> Response:
    answer = problem(error_body(error))
    headers = {}
    if answer["status"] == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="evascore"'
    if answer["status"] in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = str(answer.get("retry_after_s", DEFAULT_RETRY_AFTER_S))
    return _problem_response(answer, headers)


def answer_http(error: HTTPException) -> Response:
    """Answer the errors of Flask and Werkzeug as problem objects."""
    return _problem_response(problem_of(error), headers_of(error))


def headers_of(error: HTTPException) -> dict[str, str]:
    """The headers that an HTTP error needs besides its body."""
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        return {"Allow": ", ".join(sorted(error.valid_methods))}
    return {}


def problem_of(error: HTTPException) -> dict[str, Any]:
    """The problem object of an error of Flask or Werkzeug."""
    answer = http_problem(error.code or 500)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        answer["detail"] = _refused_method(request.method, error.valid_methods)
    return answer


def _refused_method(method: str, valid_methods: Iterable[str]) -> str:
    # A method that HTTP does not define may be a text in the wrong place.
    came = method if method in HTTPMethod.__members__ else "the method of this request"
    # Every route takes these two, and nobody means them.
    use = sorted(set(valid_methods) - {"HEAD", "OPTIONS"})
    return f"This route does not accept {came}; use {' or '.join(use)}."


def http_problem(status: int) -> dict[str, Any]:
    """The problem object of an HTTP status that is not one of our errors."""
    if status not in _HTTP_PROBLEMS:
        status = 400 if status < 500 else 500
    code, detail = _HTTP_PROBLEMS[status]
    return problem({"code": code, "message": detail, "retryable": False})


def _answer_bug(error: Exception) -> Response:
    # The lines of code but not the error's message, which may quote the request.
    log.error(
        "request_failed",
        request_id=g.get("request_id"),
        error=type(error).__name__,
        trace=traceback.format_tb(error.__traceback__),
    )
    return _problem_response(http_problem(500), {})


def _problem_response(answer: dict[str, Any], headers: dict[str, str]) -> Response:
    audit.note(outcome=answer["type"])
    return json_response(
        {**answer, "request_id": g.get("request_id")},
        answer["status"],
        headers=headers,
        media_type="application/problem+json",
    )
