"""Requests that are wrong, down to the bytes on the wire: a clear problem, and never the text."""

import re
import socket
import time

import pytest

from tests.web import WebServer

# Stands in every body and query here, and may stand in no answer and in no log.
MARKER = "Xylographenkraehe"
LIMITS = {"max_text_bytes": 1000, "max_body_bytes": 2000}


@pytest.fixture(scope="module")
def web(web_redis, tmp_path_factory):
    """A web server with small limits, whose log is searched for the marker at the end."""
    server = WebServer(tmp_path_factory.mktemp("web"), web_redis.url, **LIMITS).start()
    yield server
    assert server.stop() == 0
    assert MARKER not in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


def exchange(web, *pieces: bytes, pause_s: float = 0.0, timeout_s: float = 20) -> bytes:
    """Send raw bytes, then read until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=timeout_s) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
        return received(connection)


def received(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def head(method: str = "POST", path: str = "/score", **fields: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def assert_problem(response, status: int, code: str) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert (body["type"], body["status"]) == (code, status)
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert MARKER not in response.text
    return body


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "route_not_found"),
        ("GET", f"/{MARKER}", 404, "route_not_found"),
        ("GET", "/score/", 404, "route_not_found"),
        ("GET", "/score", 405, "method_not_allowed"),
        ("PUT", "/score", 405, "method_not_allowed"),
        ("TRACE", "/healthz", 405, "method_not_allowed"),
        ("GET", f"/score/{'a' * 32}/cancel", 405, "method_not_allowed"),
    ],
)
def test_wrong_route_or_method_is_a_problem(http, method, path, status, code):
    response = http.request(method, path)
    assert_problem(response, status, code)
    assert ("Allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("content_type", "content", "status", "code"),
    [
        ("application/json", b"", 400, "malformed_body"),
        ("application/json", f'{{"{MARKER}'.encode(), 400, "malformed_body"),
        ("application/json", f'{{"text":"{MARKER}\\ud800"}}'.encode(), 400, "malformed_body"),
        ("application/json", b"[" * 2000, 400, "malformed_body"),
        ("application/json", f'"{MARKER}"'.encode(), 422, "invalid_request"),
        ("application/json", f'{{"{MARKER}":"{MARKER}"}}'.encode(), 422, "invalid_request"),
        ("application/json", f'{{"text":["{MARKER}"]}}'.encode(), 422, "invalid_request"),
        ("application/json", f'{{"text_b64":"{MARKER}"}}'.encode(), 422, "invalid_request"),
        ("application/json", b'{"text":""}', 422, "empty_text"),
        ("text/plain", b"", 422, "empty_text"),
        ("text/plain", b"x" * 1001, 413, "text_too_large"),
        ("text/plain", b"x" * 2001, 413, "body_too_large"),
        ("text/plain", f"{MARKER}\xff".encode("latin-1"), 400, "malformed_body"),
        ("text/plain; charset=latin-1", MARKER.encode(), 415, "unsupported_media_type"),
        ("application/x-www-form-urlencoded", MARKER.encode(), 415, "unsupported_media_type"),
        (f"{MARKER}/x", b"x", 415, "unsupported_media_type"),
    ],
)
def test_wrong_body_is_a_problem_without_the_text(http, content_type, content, status, code):
    headers = {"Content-Type": content_type}
    assert_problem(http.post("/score", content=content, headers=headers), status, code)


def test_too_large_text_tells_the_limit(http):
    body = http.post("/score", json={"text": "ä" * 501}).json()
    assert (body["limit_bytes"], body["actual_bytes"]) == (1000, 1002)
    body = http.post("/score", content=b"x" * 2001).json()
    assert body["limit_bytes"] == 2000


def test_compressed_body_is_refused(http):
    response = http.post("/score", json={"text": "x"}, headers={"Content-Encoding": "gzip"})
    assert_problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("path", ["/score", "/score/x"])
def test_unknown_query_parameter_is_refused(http, path):
    method = "POST" if path == "/score" else "GET"
    response = http.request(method, path, params={MARKER: MARKER})
    if method == "POST":
        response = http.post(path, params={MARKER: MARKER}, json={"text": "x"})
    assert_problem(response, 422, "invalid_request")


def test_chunked_body_is_read(http):
    body = (piece for piece in [b'{"text":', b'"hello"}'])
    response = http.post("/score", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 202


def test_chunked_body_over_the_limit_is_refused(http):
    body = (b"x" * 100 for _ in range(21))
    response = http.post("/score", content=body, headers={"Content-Type": "text/plain"})
    assert_problem(response, 413, "body_too_large")


CHUNKED = head(Transfer_Encoding="chunked", Content_Type="text/plain", Connection="close")
# More of them than the server receives before it refuses, and no end.
ENDLESS = "".join(f"X-{number}: {'x' * 8000}\r\n" for number in range(12)).encode()
RAW = {
    "no-http": (b"%s\r\n\r\n" % MARKER.encode(), 400),
    "text-behind-the-body": (
        head(Content_Length="2", Content_Type="text/plain") + f"xx{MARKER}\r\n\r\n".encode(),
        400,
    ),
    "bad-length": (head(Content_Length="five"), 400),
    "two-lengths": (b"POST /score HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "length-and-chunked": (head(Content_Length="5", Transfer_Encoding="chunked"), 400),
    "unknown-coding": (head(Transfer_Encoding=f"{MARKER}"), 501),
    "bad-chunk-size": (CHUNKED + f"{MARKER}\r\n".encode(), 400),
    "bad-chunk-of-kept-connection": (
        head(Transfer_Encoding="chunked", Content_Type="text/plain") + b"?\r\n",
        400,
    ),
    "bad-chunk-end": (CHUNKED + b"1\r\nxx\r\n0\r\n\r\n", 400),
    "bad-trailer": (CHUNKED + f"1\r\nx\r\n0\r\n{MARKER}\r\n\r\n".encode(), 400),
    "long-line": (head(path="/score?" + MARKER * 400), 400),
    "long-field": (head(X_Long=MARKER * 1000), 431),
    "many-fields": (head(**{f"X_{number}": MARKER for number in range(100)}), 431),
    "long-fields": (head(**{f"X_{number}": "x" * 8000 for number in range(5)}), 431),
    "header-without-end": (head()[:-2] + ENDLESS, 431),
    "trailer-without-end": (CHUNKED + b"1\r\nx\r\n0\r\n" + ENDLESS, 400),
    "old-version": (f"GET /{MARKER} HTTP/3.0\r\n\r\n".encode(), 400),
    "control-in-header": (head(X_Bad=f"{MARKER}\0"), 400),
}


@pytest.mark.parametrize(("request_bytes", "status"), RAW.values(), ids=RAW)
def test_what_is_not_http_is_a_problem_without_the_text(web, request_bytes, status):
    answer = exchange(web, request_bytes)
    assert answer.count(b"HTTP/1.1 ") <= 2
    last = answer[answer.rindex(b"HTTP/1.1 ") :]
    assert last.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"application/problem+json" in last
    assert MARKER.encode() not in answer


def test_body_that_ends_early_is_refused(web):
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as connection:
        connection.sendall(head(Content_Length="50", Content_Type="text/plain") + b"short")
        connection.shutdown(socket.SHUT_WR)
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"malformed_body" in answer


@pytest.mark.parametrize("announced_bytes", [10**12, 10**30])
def test_huge_announced_body_is_refused_without_being_read(web, announced_bytes):
    began_at = time.monotonic()
    request = head(
        Content_Length=str(announced_bytes), Content_Type="text/plain", Connection="close"
    )
    assert exchange(web, request).startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - began_at < 5


def test_pipelined_requests_are_answered_in_order(web):
    first = head("GET", "/healthz")
    last = head("GET", "/nowhere", Connection="close")
    answer = exchange(web, first + first + last)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"200", b"404"]


def test_request_id_comes_back_and_is_logged(http, web):
    response = http.get("/info", headers={"X-Request-Id": "order-17.a"})
    assert response.headers["X-Request-Id"] == "order-17.a"
    assert "order-17.a" in [line["request_id"] for line in web.log_lines("request_served")]


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 65, "ä".encode()])
def test_request_id_that_may_not_be_logged_is_replaced(http, request_id):
    response = http.get("/healthz", headers={"X-Request-Id": request_id})
    assert len(response.headers["X-Request-Id"]) == 16


def test_request_is_logged_by_its_route_without_its_query(http, web):
    http.post(
        "/score",
        params={"custom_id": MARKER},
        content=MARKER,
        headers={"Content-Type": "text/plain", "X-Request-Id": "logged"},
    )
    (line,) = [x for x in web.log_lines("request_served") if x["request_id"] == "logged"]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/score", 202)
    assert line["body_bytes"] == len(MARKER)
    assert line["time_ms"] > 0


@pytest.mark.parametrize(
    ("method", "path", "status", "route"),
    [
        ("GET", "/score", 405, "/score"),
        ("POST", "/readyz", 405, "/readyz"),
        ("GET", f"/score/{MARKER}/cancel", 405, "/score/<task_id>/cancel"),
        ("GET", "/docs", 308, "/docs/"),
        ("GET", f"/{MARKER}", 404, None),
    ],
)
def test_request_without_an_answer_is_logged_by_the_route_it_meant(
    http, web, method, path, status, route
):
    request_id = f"meant{status}{len(path)}"
    response = http.request(method, path, headers={"X-Request-Id": request_id})
    (line,) = [x for x in web.log_lines("request_served") if x["request_id"] == request_id]
    assert (response.status_code, line["route"]) == (status, route)


@pytest.mark.parametrize(
    ("method", "logged"), [("PUT", "PUT"), ("SECRETWORDS", "other"), ("GET-IT-1", "other")]
)
def test_method_that_http_does_not_define_is_not_logged(http, web, method, logged):
    assert (
        http.request(method, "/score", headers={"X-Request-Id": f"method-{method}"}).status_code
        == 405
    )
    (line,) = [x for x in web.log_lines("request_served") if x["request_id"] == f"method-{method}"]
    assert line["method"] == logged


@pytest.mark.parametrize("path", ["/healthz", "/info", "/nowhere"])
def test_head_answers_like_get_without_a_body(http, path):
    response = http.head(path)
    assert response.status_code == http.get(path).status_code
    assert response.content == b""


def test_options_tells_the_methods(http):
    response = http.options("/score")
    assert response.status_code == 200
    assert set(response.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}
