"""The profile `edge`: the service through nginx, from the outside, over TLS.

The tests run in order on one service; the last one uses up its requests per second.
"""

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from app.edge import HEADER_S
from contract.settings import REPOSITORY
from tests.conftest import wait_until
from tests.docker.conftest import PROJECT, Stack, answered_score, output, readme_curl

PROBLEM = "application/problem+json"
# What a proxy waits for a byte unless told otherwise (nginx's proxy_read_timeout).
USUAL_PROXY_S = 60
UPLOAD_BYTES = 100 * 10**6
NDJSON = {"Content-Type": "application/x-ndjson"}
MARK = "zanzibar"


class Edge:
    """What a client outside sees of the service."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.certificate = folder / "tls.crt"
        self.url = f"https://localhost:{stack.https_port}"
        self.tls = ssl.create_default_context(cafile=self.certificate)

    def client(self) -> httpx.Client:
        """An HTTP client that trusts the certificate; the caller closes it."""
        return httpx.Client(base_url=self.url, verify=self.tls, timeout=300)

    def connect(self) -> ssl.SSLSocket:
        """A connection on which nothing was said; the caller closes it."""
        raw = socket.create_connection(("localhost", self.stack.https_port), timeout=60)
        return self.tls.wrap_socket(raw, server_hostname="localhost")

    def answers(self) -> bool:
        """Whether a request reaches a web server."""
        with self.client() as client:
            return client.get("/healthz").status_code == 200


@pytest.fixture(scope="module")
def edge(stack, tmp_path_factory) -> Iterator[Edge]:
    """nginx in front of the service, with the certificate that the document makes."""
    folder = tmp_path_factory.mktemp("edge")
    document = (REPOSITORY / "docs/docker.md").read_text()
    making = re.search(r"^mkdir -m 700 secrets\n.*?(?=```)", document, re.M | re.S)[0]
    output("bash", "-ec", f"cd {folder}\n{making}")
    secrets = folder / "secrets"
    stack.variables |= {
        "TLS_CERTIFICATE": secrets / "tls.crt",
        "TLS_KEY": secrets / "tls.key",
    }
    with stack.profile("edge", "edge"):
        yield Edge(stack, secrets)


@pytest.fixture
def http(edge) -> Iterator[httpx.Client]:
    with edge.client() as client:
        yield client


@contextmanager
def paused(stack: Stack, service: str) -> Iterator[None]:
    """A service whose processes stand still."""
    stack.compose("pause", service)
    try:
        yield
    finally:
        stack.compose("unpause", service)


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    problem = response.json()
    assert (response.status_code, problem["status"], problem["type"]) == (status, status, code)
    assert response.headers["Content-Type"] == PROBLEM
    assert response.headers["X-Request-Id"] == problem["request_id"]


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


@pytest.mark.parametrize(
    "path", ["/metrics", "//metrics", "/%6detrics", "/x%2f..%2fmetrics", "/metrics?x", "/metrics/"]
)
def test_metrics_stay_inside(edge, http, path):
    # The whole URL, as the client would take two slashes for the beginning of a host.
    response = http.get(edge.url + path)
    assert_problem(response, 404, "route_not_found")


def test_request_is_named_as_the_client_names_it(http):
    for path in ("/info", "/metrics"):
        assert http.get(path, headers={"X-Request-Id": MARK}).headers["X-Request-Id"] == MARK
        made = http.get(path, headers={"X-Request-Id": "a b"}).headers["X-Request-Id"]
        assert re.fullmatch("[0-9a-f]{32}", made)


@pytest.mark.parametrize("num_bytes", [8_500_000, 10_000_000], ids=["by web", "by edge"])
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_body_over_the_limit_is_refused_with_a_problem(edge, tmp_path, version, num_bytes):
    body = tmp_path / "body"
    body.write_bytes(bytes(num_bytes))
    answer = output(
        *("curl", "-sS", version, "--cacert", str(edge.certificate), f"{edge.url}/score"),
        *("-H", "Content-Type: text/plain", "--data-binary", f"@{body}"),
        *("-w", "\n%{http_code} %{content_type}"),
    )
    problem, status = answer.rsplit("\n", 1)
    assert json.loads(problem)["type"] == "body_too_large"
    assert status == f"413 {PROBLEM}"


@pytest.mark.parametrize(
    ("request_head", "status", "code"),
    [
        ("GET / HTTP/1.1\r\nHost: x\r\nX: " + "x" * 40_000, 431, "header_too_large"),
        ("TRACE / HTTP/1.1\r\nHost: x", 405, "method_not_allowed"),
        (
            "POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip",
            501,
            "unsupported_transfer_coding",
        ),
        ("GET / HTTP/3.7\r\nHost: x", 400, "bad_request"),
        ("no HTTP", 400, "bad_request"),
    ],
    ids=["long header", "TRACE", "transfer coding", "version", "no HTTP"],
)
def test_what_is_refused_at_the_edge_is_a_problem(edge, request_head, status, code):
    with edge.connect() as connection:
        connection.sendall(f"{request_head}\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert (int(head.split()[1]), problem["status"], problem["type"]) == (status, status, code)
    assert f"Content-Type: {PROBLEM}".encode() in head


def test_forged_headers_change_nothing(http):
    forged = {
        "X-Forwarded-Prefix": f"/{MARK}",
        "X-Forwarded-Host": MARK,
        "X-Forwarded-Proto": "http",
        "Forwarded": f"host={MARK}",
        "SCRIPT_NAME": f"/{MARK}",
        "Script-Name": f"/{MARK}",
    }
    response = http.post("/score", json={"text": "x"}, headers=forged)
    assert response.status_code == 202
    assert MARK not in response.text + str(response.headers)


def test_events_arrive_while_the_stream_is_open(edge, http, stack):
    with paused(stack, "worker"):
        task_id = stack.submit(wait_s=0)["id"]
        began_at = time.monotonic()
        with http.stream("GET", f"/score/{task_id}/events") as stream:
            lines = stream.iter_lines()
            first = next(line for line in lines if line.startswith("data: "))
            assert time.monotonic() - began_at < 1
            assert json.loads(first.removeprefix("data: "))["state"] == "QUEUED"
            stack.compose("unpause", "worker")
            *_, last = (line for line in lines if line.startswith("data: "))
            stack.compose("pause", "worker")
    assert json.loads(last.removeprefix("data: "))["state"] == "SUCCESS"


def test_completion_is_held_beyond_what_a_proxy_usually_waits(http, stack):
    # No byte passes meanwhile; a worker that stands still is warm until its lease lapses.
    began_at = time.monotonic()
    with paused(stack, "worker"):
        goes_on = threading.Timer(USUAL_PROXY_S + 5, stack.compose, ("unpause", "worker"))
        goes_on.start()
        asked = {"prompt": "It scores.", "max_tokens": 1, "temperature": 0}
        response = http.post("/v1/completions", json=asked)
        goes_on.join()
        stack.compose("pause", "worker")
    assert response.status_code == 200, response.text
    assert time.monotonic() - began_at > USUAL_PROXY_S


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /score HTTP/1.1\r\nHost: x\r\n", "drip"],
    ids=["nothing", "half a header", "a byte at a time"],
)
def test_client_that_stalls_is_cut_off(edge, sent):
    began_at = time.monotonic()
    with edge.connect() as connection:
        if sent == "drip":
            connection.settimeout(1)
            with suppress(ssl.SSLError, ConnectionError):
                while time.monotonic() < began_at + 3 * HEADER_S:
                    connection.sendall(b"x")
                    with suppress(TimeoutError):
                        if not connection.recv(1):
                            break
        else:
            connection.sendall(sent)
            connection.recv(65536)
    assert time.monotonic() - began_at < 2 * HEADER_S


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
    # The edge's only writable place has a megabyte. Blank lines cost the worker nothing.
    blank = (b" " * 999 + b"\n") * 1000

    def body() -> Iterator[bytes]:
        for _ in range(UPLOAD_BYTES // len(blank)):
            yield blank
        yield b'{"text": "It scores."}\n'

    response = http.post("/batches", content=body(), headers=NDJSON)
    assert response.status_code == 202, response.text
    assert response.json()["request_counts"]["total"] == 1


def test_upload_that_is_refused_at_its_beginning_says_why(http):
    def body() -> Iterator[bytes]:
        yield b"no JSON\n"
        for _ in range(100):
            yield b"x" * 10**6

    response = http.post("/batches", content=body(), headers=NDJSON)
    assert_problem(response, 422, "invalid_request")


def test_too_many_requests_of_one_address_are_refused(http):
    refused = None
    for number in range(400):
        # An address that a client claims is not believed.
        response = http.get("/healthz", headers={"X-Forwarded-For": f"10.0.0.{number % 250}"})
        if response.status_code != 200:
            refused = response
            break
    assert refused is not None
    assert_problem(refused, 429, "too_many_requests")
    assert refused.headers["Retry-After"] == "1"


def test_log_of_the_edge_has_a_line_per_refusal_and_quotes_nothing(edge, stack):
    with edge.client() as client:
        name = "named.by.the.client"
        client.get(f"/metrics?{MARK}={MARK}", headers={"X-Request-Id": name})
    lines = stack.logs("edge").splitlines()
    (line,) = (json.loads(line) for line in lines if name in line)
    assert (line["event"], line["status"]) == ("request_refused", "404")
    assert not any(f"{MARK}=" in line for line in lines)
