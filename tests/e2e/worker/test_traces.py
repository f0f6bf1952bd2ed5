"""Traces of all processes, as a collector receives them by OTLP over HTTP."""

import gzip
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.web import WebServer
from tests.worker_process import Worker

MARKER = b"rumpelstilzchen"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


class Collector(ThreadingHTTPServer):
    """Takes spans, and sorts them by the name of their service."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.spans: list[tuple[str, Span]] = []

    def take(self, body: bytes) -> None:
        assert MARKER not in body
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            facts = {each.key: each.value.string_value for each in group.resource.attributes}
            for scope in group.scope_spans:
                self.spans += [(facts["service.name"], span) for span in scope.spans]

    def of(self, service: str, name: str) -> list[Span]:
        return [span for owner, span in self.spans if (owner, span.name) == (service, name)]


class Receiver(BaseHTTPRequestHandler):
    """Answers one export."""

    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        is_packed = self.headers.get("Content-Encoding") == "gzip"
        self.server.take(gzip.decompress(body) if is_packed else body)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def both_tiers(
    folder: Path, redis_url: str, traces_url: str
) -> Iterator[tuple[httpx.Client, WebServer, Worker]]:
    """A web server and a worker that send traces; they are stopped at the end."""
    web = WebServer(folder, redis_url, traces_url=traces_url)
    worker = Worker(folder, redis_url, traces_url=traces_url)
    try:
        web.start()
        worker.start().wait_ready()
        with web.client() as client:
            yield client, web, worker
        # Processes that stop send the spans that they still have.
        worker.send(signal.SIGTERM)
        assert [web.stop(), worker.wait_exit()] == [0, 0]
    finally:
        worker.stop()
        web.stop()


def test_one_trace_leads_from_the_caller_to_the_micro_batch(collector, redis_server, tmp_path):
    url = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    with both_tiers(tmp_path, redis_server.url, url) as (client, _, _):
        answer = client.post(
            "/score?wait=30", json={"text": MARKER.decode()}, headers={"traceparent": PARENT}
        )
    assert answer.json()["state"] == "SUCCESS"
    (request,) = collector.of("evascore-web", "POST /score")
    (job,) = collector.of("evascore-worker", "job")
    (together,) = collector.of("evascore-worker", "micro-batch")
    assert request.trace_id.hex() == job.trace_id.hex() == TRACE_ID
    assert request.parent_span_id.hex() == PARENT.split("-")[2]
    assert job.parent_span_id == request.span_id
    assert [link.span_id for link in together.links] == [job.span_id]
    assert [link.span_id for link in job.links] == [together.span_id]
    assert answer.headers["traceparent"] == f"00-{TRACE_ID}-{request.span_id.hex()}-01"
    assert request.start_time_unix_nano <= together.start_time_unix_nano
    assert together.end_time_unix_nano <= job.end_time_unix_nano


def test_collector_that_is_away_delays_no_job(redis_server, tmp_path):
    url = "http://127.0.0.1:1/v1/traces"
    with both_tiers(tmp_path, redis_server.url, url) as (client, web, worker):
        answer = client.post("/score?wait=30", json={"text": MARKER.decode()})
    assert answer.json()["state"] == "SUCCESS"
    for process in (web, worker):
        assert MARKER not in process.log.read_bytes()
