"""Makes spans with OpenTelemetry and sends them to a collector; import it through `tracing.py`.

Names and attributes of spans are IDs, templates of routes, codes and numbers. They never hold a
text that was sent for scoring.
"""

import threading
from collections.abc import Iterable

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from contract import __version__

_EXPORT_S = 5
# A collector that is away must not hold up a process that stops.
STOP_S = 2.0
_PROPAGATOR = TraceContextTextMapPropagator()

Attribute = str | int | float | bool


class Tracing:
    """The spans of one process."""

    def __init__(self, provider: TracerProvider) -> None:
        """Make spans with `provider`, whose processors decide where they go."""
        self._provider = provider
        self._tracer = provider.get_tracer("evascore", __version__)

    @classmethod
    def sending_to(cls, url: str, process: str) -> "Tracing":
        """Send spans in the background to the collector at `url`, by OTLP over HTTP.

        Args:
            process: `web` or `worker`.
        """
        facts = {"service.name": f"evascore-{process}", "service.version": __version__}
        # Its own stop at the exit of the process may take half a minute.
        provider = TracerProvider(resource=Resource.create(facts), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=url, timeout=_EXPORT_S)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    def start(
        self,
        name: str,
        attributes: dict[str, Attribute],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        parent: str = "",
        links: Iterable[Span] = (),
        at_s: float | None = None,
    ) -> Span:
        """Start a span; the caller ends it.

        Args:
            parent: a `traceparent`; a span without a valid one begins a trace.
            links: spans of other traces that this one works for.
            at_s: Unix time at which it began, seconds; now if it is None.
        """
        return self._tracer.start_span(
            name,
            context=_PROPAGATOR.extract({"traceparent": parent}),
            kind=kind,
            attributes=attributes,
            links=[Link(each.get_span_context()) for each in links],
            start_time=None if at_s is None else int(at_s * 1e9),
        )

    def stop(self, timeout_s: float = STOP_S) -> None:
        """Send the spans that have ended; what is not sent within `timeout_s` is lost."""
        # OpenTelemetry has no time limit for all of it: each export may take its full time.
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(timeout_s)


def traceparent_of(span: Span) -> str:
    """The `traceparent` that names a span, as the W3C's Trace Context defines it."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
