"""The profile `edge`: what nginx refuses, cuts off and does not believe; each refusal a problem.

The tests run in order; the last one uses up the requests per second of this address.
"""

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from app.server.header_timeout import HEADER_S
from tests.docker.conftest import PROBLEM, assert_problem, output

NDJSON = {"Content-Type": "application/x-ndjson"}
MARK = "zanzibar"


@pytest.mark.parametrize(
    "path", ["/metrics", "//metrics", "/%6detrics", "/x%2f..%2fmetrics", "/metrics?x", "/metrics/"]
)
def test_metrics_stay_inside(edge, http, path):
    # The whole URL, as the client would take two slashes for the beginning of a host.
    response = http.get(edge.url + path)
    assert_problem(response, 404, "route_not_found")


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
        ("GET / HTTP/1.1\r\nHost: localhost\r\nX: " + "x" * 40_000, 431, "header_too_large"),
        (f"GET /{'x' * 9000} HTTP/1.1\r\nHost: localhost", 400, "uri_too_long"),
        ("TRACE / HTTP/1.1\r\nHost: localhost", 405, "method_not_allowed"),
        (
            "POST /score HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip",
            501,
            "unsupported_transfer_coding",
        ),
        ("GET / HTTP/3.7\r\nHost: localhost", 400, "bad_request"),
        ("no HTTP", 400, "bad_request"),
    ],
    ids=["long header", "long line", "TRACE", "transfer coding", "version", "no HTTP"],
)
def test_what_is_refused_at_the_edge_is_a_problem(edge, request_head, status, code):
    with edge.connect() as connection:
        connection.sendall(f"{request_head}\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert (int(head.split()[1]), problem["status"], problem["type"]) == (status, status, code)
    assert f"Content-Type: {PROBLEM}".encode() in head


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_foreign_host_is_refused_and_not_redirected(edge, http, stack, scheme):
    port = stack.variables["EDGE_HTTP_PORT"]
    url = edge.url if scheme == "https" else f"http://localhost:{port}"
    response = http.get(f"{url}/info", headers={"Host": "evil.example"}, follow_redirects=False)
    assert_problem(response, 421, "misdirected_request")
    assert "Location" not in response.headers


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


@pytest.mark.parametrize(
    "sent", [b"", b"POST /score HTTP/1.1\r\nHost: localhost\r\n"], ids=["no", "half a"]
)
def test_client_that_stalls_in_its_header_is_cut_off(edge, sent):
    began_at = time.monotonic()
    with edge.connect() as connection:
        connection.sendall(sent)
        connection.recv(65536)
    assert time.monotonic() - began_at < 2 * HEADER_S


def test_client_whose_header_drips_is_cut_off(edge):
    began_at = time.monotonic()
    with edge.connect() as connection, suppress(ssl.SSLError, ConnectionError):
        connection.settimeout(1)
        is_open = True
        while is_open and time.monotonic() < began_at + 3 * HEADER_S:
            connection.sendall(b"x")
            with suppress(TimeoutError):
                is_open = bool(connection.recv(1))
    assert time.monotonic() - began_at < 2 * HEADER_S


def test_upload_that_is_refused_at_its_beginning_says_why(http):
    def body() -> Iterator[bytes]:
        yield b"no JSON\n"
        for _ in range(100):
            yield b"x" * 10**6

    response = http.post("/batches", content=body(), headers=NDJSON)
    assert_problem(response, 422, "invalid_request")


def test_log_of_the_edge_has_a_line_per_refusal_and_quotes_nothing(edge, stack):
    with edge.client() as client:
        name = "named.by.the.client"
        client.get(f"/metrics?{MARK}={MARK}", headers={"X-Request-Id": name})
    lines = stack.logs("edge").splitlines()
    (line,) = (json.loads(line) for line in lines if name in line)
    assert (line["event"], line["status"]) == ("request_refused", "404")
    assert not any(f"{MARK}=" in line for line in lines)


def test_too_many_requests_of_one_address_are_refused(http):
    # An address that a client claims is not believed.
    answers = (
        http.get("/healthz", headers={"X-Forwarded-For": f"10.0.0.{number}"})
        for number in range(250)
    )
    refused = next(answer for answer in answers if answer.status_code != 200)
    assert_problem(refused, 429, "too_many_requests")
    assert refused.headers["Retry-After"] == "1"
