"""Who may use the API: hosts that are ours, and pages of our own or of configured origins."""

import socket

import pytest

from app.server.origins import CORS_REQUEST_HEADERS
from tests.web import WebServer

APP = "https://app.example.org"
FOREIGN = "https://evil.example"
SETTINGS = {"allowed_hosts": "Scores.example.org, *.example.net", "cors_origins": APP}


@pytest.fixture(scope="module")
def web(web_redis, tmp_path_factory):
    """A web server with names and a friendly origin; no refusal raises an unexpected error."""
    server = WebServer(tmp_path_factory.mktemp("web"), web_redis.url, **SETTINGS).start()
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


def status_of(web: WebServer, request: bytes) -> tuple[int, bytes]:
    """The status and the body of the answer to these bytes."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:1", "LOCALHOST", "localhost.", "x.localhost", "127.0.0.1:8000"),
        *(
            "192.0.2.7",
            "[::1]:8000",
            "[2001:db8::1]",
            "scores.example.org",
            "SCORES.example.org:443",
        ),
        *("a.example.net", "a.b.example.net"),
    ],
)
def test_host_of_ours_is_answered(http, host):
    assert http.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "scores.example.org.evil.example"),
        *("xscores.example.org", "example.net", "x.scores.example.org", "127.0.0.1.evil.example"),
        *("0x7f.1", "2130706433", "evillocalhost"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in ("/", "/info", "/healthz", "/metrics", "/docs", "/docs/")),
        *(("GET", path) for path in ("/openapi.json", "/nowhere", "/score/agr")),
        *(("POST", path) for path in ("/score", "/batches", "/v1/completions")),
    ],
)
def test_foreign_host_is_refused_on_every_route(http, method, path, host):
    response = http.request(method, path, headers={"Host": host})
    problem = response.json()
    assert (response.status_code, problem["type"]) == (421, "misdirected_request")
    assert "EVASCORE_ALLOWED_HOSTS" in problem["detail"]
    assert host in problem["detail"]


@pytest.mark.parametrize(
    "host",
    [
        *(b"", b"a b", b"a..b", b"localhost:x", b"localhost:99999", b"[::1", b"[1.2.3.4]", b"a@b"),
        *(b"localhost/x", b"\xff\xfe", "münchen.example".encode(), b"x" * 64, b"a." * 128),
        *(b"localhost\r\nHost: localhost", b"localhost\r\nHost: evil.example"),
    ],
)
@pytest.mark.parametrize("path", [b"/docs/", b"/docs", b"/score"])
def test_malformed_host_is_400(web, path, host):
    status, body = status_of(web, b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (path, host))
    assert status == 400
    assert b'"bad_request"' in body


def test_http_1_1_without_a_host_is_400(web):
    status, body = status_of(web, b"GET /healthz HTTP/1.1\r\n\r\n")
    assert (status, b'"bad_request"' in body) == (400, True)


def test_http_1_0_needs_no_host(web):
    assert status_of(web, b"GET /healthz HTTP/1.0\r\n\r\n")[0] == 200


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": FOREIGN},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://scores.example.org"},
        {"Origin": f"{APP}:8443", "Sec-Fetch-Site": "cross-site"},
        {"Origin": APP.replace("https", "http")},
    ],
    ids=str,
)
def test_page_of_another_origin_changes_nothing(http, method, headers):
    before = http.get("/stats").json()["queue"]
    path = "/score" if method == "POST" else "/score/agr"
    sent = {"Host": "localhost", "Content-Type": "text/plain", **headers}
    response = http.request(method, path, headers=sent, content=b"text")
    assert (response.status_code, response.json()["type"]) == (403, "origin_not_allowed")
    assert "EVASCORE_CORS_ORIGINS" in response.json()["detail"]
    assert http.get("/stats").json()["queue"] == before


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "none"},
        {"Host": "localhost:8000", "Origin": "http://localhost:8000"},
        {
            "Host": "localhost:8000",
            "Origin": "http://localhost:8000",
            "Sec-Fetch-Site": "same-origin",
        },
        {"Host": "scores.example.org", "Origin": "https://scores.example.org"},
        {"Host": "scores.example.org:443", "Origin": "https://scores.example.org"},
        {"Host": "[::1]:80", "Origin": "http://[::1]"},
        {"Origin": APP, "Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
def test_programs_our_pages_and_configured_origins_may_submit(http, headers):
    response = http.post("/score", json={"text": "x"}, headers=headers)
    assert response.status_code == 202, response.text


def test_page_of_a_configured_origin_may_read_answers_and_errors(http):
    for path, status in (("/info", 200), ("/nowhere", 404)):
        response = http.get(path, headers={"Origin": APP})
        assert response.status_code == status
        assert response.headers["Access-Control-Allow-Origin"] == APP
        assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]
        assert "Origin" in response.headers["Vary"]


def test_preflight_of_a_configured_origin_names_methods_and_headers(http):
    asked = {"Origin": APP, "Access-Control-Request-Method": "DELETE"}
    headers = http.options("/score/agr", headers=asked).headers
    assert headers["Access-Control-Allow-Origin"] == APP
    assert {"GET", "DELETE"} <= set(headers["Access-Control-Allow-Methods"].split(", "))
    assert headers["Access-Control-Allow-Headers"] == ", ".join(CORS_REQUEST_HEADERS)
    assert "Access-Control-Allow-Credentials" not in headers


@pytest.mark.parametrize("origin", [FOREIGN, "null", f"{APP}.evil.example"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_other_origins_get_no_cors_headers(http, origin, method):
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    headers = http.request(method, "/info", headers=asked).headers
    assert not [name for name in headers if name.startswith("access-control-")]


def test_preflight_needs_no_api_key(web_redis, tmp_path):
    server = WebServer(tmp_path, web_redis.url, auth="keys", **SETTINGS).start()
    asked = {"Origin": APP, "Access-Control-Request-Method": "POST"}
    try:
        with server.client() as http:
            for path in ("/score", "/batches", "/v1/completions", "/score/agr/events"):
                preflight = http.options(path, headers=asked)
                assert preflight.status_code == 200, path
                assert preflight.headers["Access-Control-Allow-Origin"] == APP
                assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
            assert (
                http.post("/score", headers={"Origin": APP}, json={"text": "x"}).status_code == 401
            )
    finally:
        assert server.stop() == 0
