"""The client between a real service and a real proxy, with the network variables of a shell."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import evascore
from deploy.embedded_redis import free_port
from evascore.cli.main import main
from tests.service import Service


class Proxy(BaseHTTPRequestHandler):
    """Answers as the service would, to those that name themselves; counts all."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the URL and the headers that came, or 407."""
        self.server.seen.append(self.path)
        is_known = self.headers["Proxy-Authorization"] == "Basic bmFtZTpwYXNzd29yZA=="
        reply = {"url": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}}
        body = json.dumps(reply).encode() if is_known else b"<html>who are you?</html>"
        self.send_response(200 if is_known else 407)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Answer as to a GET."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_CONNECT(self) -> None:
        """Refuse every tunnel."""
        self.server.seen.append(self.path)
        self.send_response(407)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class ProxyServer(ThreadingHTTPServer):
    """The proxy, and the URLs that it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Proxy)
        self.seen: list[str] = []

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.server_port}"


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProxyServer]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server = ProxyServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_text_for_a_service_on_this_machine_reaches_no_proxy(
    scoring: Service, proxy, name, host, monkeypatch, capsys
):
    monkeypatch.setenv(name, f"http://{proxy.address}")
    url = f"http://{host}:{scoring.port}"
    with evascore.Client(url, patience_s=0) as client:
        assert client.score("abc").num_bytes == 3
    assert main(["score", "abc", "--url", url]) == 0
    assert proxy.seen == []


def test_load_on_a_service_of_this_machine_reaches_no_proxy(
    scoring: Service, proxy, monkeypatch, capsys
):
    monkeypatch.setenv("ALL_PROXY", f"http://{proxy.address}")
    assert main(["bench", "--clients", "1", "--duration", "0.2", "--url", scoring.url]) == 0
    assert proxy.seen == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("all_proxy", "socks5h://127.0.0.1:9"),
        ("HTTP_PROXY", "nonsense://x"),
        ("NO_PROXY", "::1/128"),
        ("no_proxy", "%%,[::1]/128"),
        ("SSL_CERT_FILE", "/missing"),
        ("SSL_CERT_DIR", "/missing"),
        ("SSLKEYLOGFILE", "/missing/keys"),
    ],
)
def test_service_on_this_machine_needs_none_of_the_variables(
    scoring: Service, proxy, name, value, monkeypatch, capsys
):
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
    monkeypatch.setenv(name, value)
    assert main(["score", "abc", "--url", scoring.url]) == 0
    assert capsys.readouterr().err == ""
    assert proxy.seen == []


def test_proxy_that_asks_who_sends_is_named_and_takes_a_header(proxy, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
    with (
        evascore.Client("http://a.test", patience_s=0) as client,
        pytest.raises(evascore.ClientError) as raised,
    ):
        client.get("/info")
    assert f"407 through the proxy http://{proxy.address} (variable HTTP_PROXY)" in str(
        raised.value
    )
    headers = {"Proxy-Authorization": "Basic bmFtZTpwYXNzd29yZA==", "X-Team": "blue"}
    with evascore.Client("http://a.test", headers=headers, api_key="key") as client:
        reply = client.get("/info")
    assert reply["url"] == "http://a.test/info"
    assert reply["headers"]["x-team"] == "blue"
    assert reply["headers"]["authorization"] == "Bearer key"


def test_proxy_takes_name_and_password_of_its_url(proxy, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", f"http://name:password@{proxy.address}")
    with evascore.Client("http://a.test", patience_s=0) as client:
        assert client.get("/info")["url"] == "http://a.test/info"


def test_tunnel_that_a_proxy_refuses_names_the_proxy(proxy, monkeypatch, capsys):
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
    arguments = ["score", "secret", "--patience", "0", "-H", "X-Team: blue"]
    assert main([*arguments, "--url", "https://a.test"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert f"the proxy http://{proxy.address} (variable HTTPS_PROXY) (407 " in line
    assert proxy.seen == ["a.test:443"]


def test_header_of_the_command_line_reaches_the_service(proxy, monkeypatch, capsys):
    url = f"http://{proxy.address}"
    header = "Proxy-Authorization: Basic bmFtZTpwYXNzd29yZA=="
    monkeypatch.setenv("HTTP_PROXY", url)
    # The stub answers with no job; that it answered shows that the header came.
    assert main(["score", "x", "--patience", "0", "-H", header, "--url", "http://a.test"]) == 1
    assert "not a complete Job" in capsys.readouterr().err


def test_proxy_that_is_away_is_named(proxy, monkeypatch, capsys):
    port = free_port()
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{port}")
    assert main(["score", "x", "--patience", "0", "--url", "http://a.test"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert f"through the proxy http://127.0.0.1:{port} (variable http_proxy)" in line
