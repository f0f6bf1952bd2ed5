"""Traces: spans of requests, jobs and micro-batches, gathered in memory, without any text."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from flask.testing import FlaskClient
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.factory import create_app
from app.service.components import EXTENSION
from contract import tracing
from contract.otel import Tracing, traceparent_of
from worker.scheduling.batching import Choice, Credit
from worker.scheduling.filling import Share
from worker.scoring.outcomes import open_job
from worker.scoring.spans import JobSpans

MARKER = "rumpelstilzchen"
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"


class Spans:
    """What the processes of a test have traced."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider)

    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        (found,) = (span for span in self.all() if span.name == name)
        return found


@pytest.fixture
def spans() -> Iterator[Spans]:
    gathered = Spans()
    yield gathered
    assert MARKER not in "".join(span.to_json() for span in gathered.all())


@contextmanager
def client_of(settings, traced) -> Iterator[FlaskClient]:
    """A client of an application with traces, or without."""
    app = create_app(settings, traced)
    yield app.test_client()
    app.extensions[EXTENSION].changes.close()


def post(settings, traced, headers=None):
    with client_of(settings, traced) as client:
        return client.post("/score", json={"text": MARKER}, headers=headers or {})


def opened(job_store, task_id: str):
    (found,) = job_store.open_jobs([task_id])
    return found.job


def test_request_continues_the_trace_of_its_caller(spans, settings, redis_client):
    answer = post(settings, spans.tracing, {"traceparent": PARENT})
    span = spans.named("POST /score")
    assert f"{span.context.trace_id:032x}" == TRACE_ID
    assert f"{span.parent.span_id:016x}" == PARENT_ID
    assert answer.headers["traceparent"] == f"00-{TRACE_ID}-{span.context.span_id:016x}-01"
    assert dict(span.attributes) == {
        "http.request.method": "POST",
        "http.route": "/score",
        "http.response.status_code": 202,
        "evascore.request_id": answer.headers["X-Request-Id"],
        "evascore.task_id": answer.json["id"],
        "evascore.outcome": "accepted",
    }


@pytest.mark.parametrize("parent", ["", "00-0-0-01", MARKER, "é"])
def test_request_without_a_valid_parent_begins_a_trace(spans, settings, redis_client, parent):
    post(settings, spans.tracing, {"traceparent": parent})
    assert spans.named("POST /score").parent is None


def test_trace_that_its_caller_does_not_record_is_not_recorded(spans, settings, redis_client):
    answer = post(settings, spans.tracing, {"traceparent": PARENT[:-1] + "0"})
    assert spans.all() == []
    assert answer.headers["traceparent"].startswith(f"00-{TRACE_ID}-")


def test_path_and_query_are_in_no_span(spans, settings, redis_client):
    with client_of(settings, spans.tracing) as client:
        client.get(f"/{MARKER}?{MARKER}={MARKER}")
        client.open("/score", method=MARKER.upper())
        client.get(f"/score/{MARKER}")
    names = [span.name for span in spans.all()]
    assert names == ["GET none", "other none", "GET /score/<task_id>"]


def test_probes_have_no_spans(spans, settings, redis_client):
    with client_of(settings, spans.tracing) as client:
        for path in ("/healthz", "/readyz", "/metrics"):
            client.get(path)
    assert spans.all() == []


def test_job_is_in_the_trace_of_its_request_and_linked_with_its_micro_batch(
    spans, settings, job_store
):
    ids = [post(settings, spans.tracing).json["id"] for _ in range(2)]
    jobs = [opened(job_store, task_id) for task_id in ids]
    traced = JobSpans(spans.tracing)
    shares = [share_of(task_id, job) for task_id, job in zip(ids, jobs, strict=True)]
    for task_id, job in zip(ids, jobs, strict=True):
        traced.open(task_id, job)
    with traced.micro_batch(Choice(shares, Credit())):
        pass
    for task_id in ids:
        traced.end(task_id, "SUCCESS")

    requests = [span for span in spans.all() if span.name == "POST /score"]
    found = [span for span in spans.all() if span.name == "job"]
    together = spans.named("micro-batch")
    assert [span.parent.span_id for span in found] == [span.context.span_id for span in requests]
    assert [span.context.trace_id for span in found] == [span.context.trace_id for span in requests]
    assert [span.attributes["evascore.task_id"] for span in found] == ids
    assert found[0].start_time == int(jobs[0].submitted_at * 1e9)
    assert together.parent is None
    assert {link.context.span_id for link in together.links} == {
        span.context.span_id for span in found
    }
    for span in found:
        assert [link.context.span_id for link in span.links] == [together.context.span_id]
        assert span.attributes["evascore.state"] == "SUCCESS"


def share_of(task_id, job) -> Share:
    options = {"num_crashes": 0, "max_slice_bytes": 100, "max_text_bytes": 100, "window_size": 16}
    score_job = open_job(task_id, job, **options)
    return Share(score_job, score_job.slices)


def test_jobs_that_are_redelivered_end_their_spans(spans, settings, job_store):
    task_id = post(settings, spans.tracing).json["id"]
    traced = JobSpans(spans.tracing)
    traced.open(task_id, opened(job_store, task_id))
    traced.abandon()
    traced.end(task_id, "SUCCESS")
    assert spans.named("job").attributes["evascore.state"] == "REDELIVERED"


def test_without_the_setting_nothing_is_traced(settings, job_store):
    assert tracing.start_tracing(settings.traces_url, "web") is None
    answer = post(settings, None, {"traceparent": PARENT})
    assert "traceparent" not in answer.headers
    job = opened(job_store, answer.json["id"])
    assert job.traceparent == ""
    untraced = JobSpans()
    untraced.open("a", job)
    with untraced.micro_batch(Choice([], Credit())):
        pass
    untraced.end("a", "SUCCESS")


def test_missing_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(tracing, "_PACKAGES", ("opentelemetry-of-nobody",))
    tracing.check_tracing(None)
    with pytest.raises(tracing.TracingUnavailable) as refused:
        tracing.start_tracing("http://127.0.0.1:4318/v1/traces", "web")
    assert str(refused.value) == (
        "EVASCORE_TRACES_URL needs the package opentelemetry-of-nobody; "
        "install requirements-otel.lock, or unset the setting"
    )


class SilentCollector(SpanExporter):
    """A collector that answers nothing until it is released."""

    def __init__(self) -> None:
        self.was_asked, self.is_released = threading.Event(), threading.Event()

    def export(self, spans):
        self.was_asked.set()
        self.is_released.wait()
        return SpanExportResult.FAILURE


def test_collector_that_is_silent_does_not_stop_a_process_from_ending():
    collector, provider = SilentCollector(), TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(collector))
    silent = Tracing(provider)
    silent.start("job", {}).end()
    stopping = threading.Thread(target=silent.stop, args=(0.1,), daemon=True)
    stopping.start()
    try:
        assert collector.was_asked.wait(60)
        stopping.join(60)
        assert not stopping.is_alive()
    finally:
        collector.is_released.set()


def test_collector_that_is_away_holds_up_nothing():
    away = Tracing.sending_to("http://127.0.0.1:1/v1/traces", "worker")
    span = away.start("job", {})
    assert traceparent_of(span).startswith("00-")
    span.end()
    began = time.monotonic()
    away.stop()
    assert time.monotonic() - began < 60
