"""Makes one span for each request, and gives its `traceparent` to the jobs of the request."""

from typing import TYPE_CHECKING

from flask import Response, g, has_request_context, request

if TYPE_CHECKING:
    from contract.otel import Tracing

_HEADER = "traceparent"


def begin_span(tracing: "Tracing", method: str, route: str | None) -> None:
    """Begin the span of the current request, inside the trace that its header names.

    Args:
        route: its template, or None; the path may hold text.
    """
    # Only where traces are on: their packages are an extra.
    from opentelemetry.trace import SpanKind

    facts = {"http.request.method": method, "http.route": route or "none"}
    parent = request.headers.get(_HEADER, "")
    g.span = tracing.start(
        f"{method} {route or 'none'}",
        {**facts, "evascore.request_id": g.request_id},
        kind=SpanKind.SERVER,
        parent=parent,
    )


def end_span(response: Response, task_id: str | None, outcome: str | None) -> None:
    """End the span of the current request if it has one, and name it in the answer."""
    span = g.get("span")
    if span is None:
        return
    response.headers[_HEADER] = current_traceparent()
    span.set_attribute("http.response.status_code", response.status_code)
    for name, value in (("evascore.task_id", task_id), ("evascore.outcome", outcome)):
        if value is not None:
            span.set_attribute(name, value)
    span.end()


def current_traceparent() -> str:
    """The `traceparent` of the current request's span; '' where traces are off."""
    span = g.get("span") if has_request_context() else None
    if span is None:
        return ""
    from contract.otel import traceparent_of

    return traceparent_of(span)
