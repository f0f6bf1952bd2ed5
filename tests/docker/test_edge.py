"""The profile `edge`: what passes through nginx, from the outside, over TLS."""

import json
import re
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import wait_until
from tests.docker.conftest import (
    PROJECT,
    Stack,
    answered_score,
    assert_problem,
    output,
    readme_curl,
)

# What a proxy waits for a byte unless told otherwise (nginx's proxy_read_timeout).
USUAL_PROXY_S = 60
UPLOAD_BYTES = 200 * 10**6
NDJSON = {"Content-Type": "application/x-ndjson"}


def test_curl_of_the_readme_scores_the_text_over_tls(edge):
    curl, shown = readme_curl()
    curl = curl.replace("localhost:8000", edge.url)
    answer = output("bash", "-c", f"{curl.rstrip()} -sS --cacert {edge.certificate}")
    assert answered_score(answer) == pytest.approx(shown, rel=1e-4)


def test_plain_http_is_sent_on_to_tls(edge, stack):
    port = stack.variables["EDGE_HTTP_PORT"]
    response = httpx.post(f"http://localhost:{port}/score?wait=1", json={"text": "x"})
    assert response.status_code == 308
    assert response.headers["Location"] == "https://localhost/score?wait=1"


def test_request_is_named_as_the_client_names_it(http):
    for path in ("/info", "/metrics"):
        assert http.get(path, headers={"X-Request-Id": "x.1"}).headers["X-Request-Id"] == "x.1"
        made = http.get(path, headers={"X-Request-Id": "a b"}).headers["X-Request-Id"]
        assert re.fullmatch("[0-9a-f]{32}", made)


def test_events_arrive_while_the_stream_is_open(edge, http, stack):
    with stack.paused("worker") as resume:
        task_id = stack.submit(wait_s=0)["id"]
        began_at = time.monotonic()
        with http.stream("GET", f"/score/{task_id}/events") as stream:
            lines = stream.iter_lines()
            first = next(line for line in lines if line.startswith("data: "))
            assert time.monotonic() - began_at < 1
            assert json.loads(first.removeprefix("data: "))["state"] == "QUEUED"
            resume()
            *_, last = (line for line in lines if line.startswith("data: "))
    assert json.loads(last.removeprefix("data: "))["state"] == "SUCCESS"


def test_completion_is_held_beyond_what_a_proxy_usually_waits(http, stack):
    # No byte passes meanwhile; a worker that stands still is warm until its lease lapses.
    began_at = time.monotonic()
    with stack.paused("worker") as resume:
        goes_on = threading.Timer(USUAL_PROXY_S + 5, resume)
        goes_on.start()
        asked = {"prompt": "It scores.", "max_tokens": 1, "temperature": 0}
        response = http.post("/v1/completions", json=asked)
        goes_on.join()
    assert response.status_code == 200, response.text
    assert time.monotonic() - began_at > USUAL_PROXY_S


def test_web_server_that_is_away_is_a_problem_that_names_a_time(http, stack):
    stack.compose("stop", "web")
    try:
        response = http.get("/info")
    finally:
        stack.up("web")
    assert_problem(response, 502, "web_unavailable")
    assert response.headers["Retry-After"] == "2"
    assert response.json()["retryable"] is True


def test_web_server_at_a_new_address_is_found(edge, stack):
    old = stack.address("web")
    stack.compose("rm", "--stop", "--force", "web")
    placeholder = output(
        *("docker", "run", "--detach", "--rm", "--init", "--network", f"{PROJECT}_outside"),
        *("evascore-web:local", "sleep", "300"),
    ).strip()
    try:
        stack.up("web")
        assert stack.address("web") != old
        wait_until(edge.answers, timeout_s=10)
    finally:
        output("docker", "rm", "--force", placeholder)


def test_requests_go_to_all_web_servers_and_pass_one_that_died(edge, http, stack):
    port = stack.variables["WEB_PORT"]
    # Any port of this machine for each.
    stack.variables["WEB_PORT"] = 0
    try:
        stack.up("--scale", "web=2", "web")
        wait_until(lambda: len({_server(http, stack) for _ in range(2)}) == 2, timeout_s=30)
        output("docker", "kill", stack.compose("ps", "--quiet", "web").split()[0])
        assert {http.get("/info").status_code for _ in range(10)} == {200}
    finally:
        stack.variables["WEB_PORT"] = port
        stack.up("--scale", "web=1", "web")


def _server(http: httpx.Client, stack: Stack) -> str:
    """The name of the web container that has answered a request."""
    request_id = http.get("/info").headers["X-Request-Id"]
    (line,) = (line for line in stack.compose("logs", "web").splitlines() if request_id in line)
    return line.partition(" ")[0]


def test_upload_passes_without_a_file_at_the_edge(http):
    # The edge's only writable place has 192 MB. Blank lines cost the worker nothing.
    blank = (b" " * 999 + b"\n") * 1000

    def body() -> Iterator[bytes]:
        for _ in range(UPLOAD_BYTES // len(blank)):
            yield blank
        yield b'{"text": "It scores."}\n'

    response = http.post("/batches", content=body(), headers=NDJSON)
    assert response.status_code == 202, response.text
    assert response.json()["request_counts"]["total"] == 1
