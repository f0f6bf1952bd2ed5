"""The configuration of the edge in a real nginx, without TLS, before a real web server."""

import os
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from contract.api_keys import new_key
from contract.store.connection.broker import connect
from contract.store.key_store import KeyStore
from tests.conftest import wait_until
from tests.edge import CONF, NGINX, edge, nginx
from tests.web import WebServer, free_port

HEAD = (
    b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 9\r\n\r\n"
)

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@pytest.fixture(scope="module")
def web(web_redis, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    settings = {"trusted_proxies": "127.0.0.1", "web_connections": 512}
    server = WebServer(folder, web_redis.url, **settings).start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def port(web, tmp_path_factory):
    """The port of the edge before the web server."""
    with edge(web.url, tmp_path_factory.mktemp("nginx")) as running:
        yield running.port


def from_address(address: str, port: int) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=20)


def test_unfinished_bodies_do_not_reach_the_web_server(web, port):
    with ExitStack() as stack, web.client() as direct:
        for number in range(3 * 30):
            client = stack.enter_context(socket.socket())
            client.bind((f"127.0.0.{2 + number % 3}", 0))
            client.connect(("127.0.0.1", port))
            client.sendall(HEAD + b"x")
        began_at = time.monotonic()
        with from_address("127.0.0.9", port) as other:
            assert other.post("/score", json={"text": "x"}).status_code == 202
        assert direct.get("/healthz").status_code == 200
        # On a busy machine too. An unfinished body may take 60 s.
        assert time.monotonic() - began_at < 15
        (worker,) = web.workers()
        connections = [each for each in worker.net_connections() if each.laddr.port == web.port]
        # The listener, and the connections of the two clients that finished.
        assert len([each for each in connections if each.status == "ESTABLISHED"]) <= 2


@pytest.mark.parametrize("num_bytes", [1, 100_000, 2_000_000])
def test_body_that_waits_at_the_edge_arrives_whole(port, num_bytes):
    with from_address("127.0.0.10", port) as http:
        items = [{"text": "x" * min(num_bytes, 20_000)}] * max(1, num_bytes // 20_000)
        response = http.post("/score", json={"items": items})
        assert response.status_code == 202


def test_file_passes_the_edge_whole(port):
    content = os.urandom(1_500_000)
    with from_address("127.0.0.12", port) as http:
        form = {"data": {"purpose": "batch"}, "files": {"file": ("f", content)}}
        response = http.post("/v1/files", **form)
        assert response.status_code == 200
        assert http.get(f"/v1/files/{response.json()['id']}/content").content == content


def unfinished(method: str, path: str, length: str) -> bytes:
    """The beginning of a request whose body is not complete."""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n1\r\nx".encode()


@contextmanager
def sent(address: str, port: int, requests: list[bytes]) -> Iterator[list[socket.socket]]:
    """Connections from `address`, with one request on each."""
    with ExitStack() as stack:
        clients = []
        for request in requests:
            client = stack.enter_context(socket.socket())
            client.bind((address, 0))
            client.connect(("127.0.0.1", port))
            client.sendall(request)
            clients.append(client)
        yield clients


def answered(clients: list[socket.socket]) -> list[socket.socket]:
    return select.select(clients, [], [], 0)[0]


LARGE_BODIES = {
    "score": ("127.0.1.1", "/score", "Content-Length: 1000000"),
    "completions": ("127.0.1.2", "/v1/completions", "Content-Length: 9000000"),
    "tokenize": ("127.0.1.3", "/tokenize", "Content-Length: 9000000"),
    "detokenize": ("127.0.1.4", "/detokenize", "Content-Length: 9000000"),
    "chunked": ("127.0.1.5", "/score", "Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize(("address", "path", "length"), LARGE_BODIES.values(), ids=LARGE_BODIES)
def test_client_has_at_most_four_large_bodies_at_the_edge(port, address, path, length):
    with sent(address, port, [unfinished("POST", path, length)] * 5) as clients:
        # It may be any of them, as nginx has several processes.
        (refused,) = wait_until(lambda: answered(clients), timeout_s=20)
        answer = refused.recv(65536)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b'"type":"too_many_requests"' in answer
        items = {"items": [{"text": "x" * 20_000}] * 100}
        with from_address(address, port) as same, from_address("127.0.1.9", port) as other:
            assert same.post("/score", json=items).status_code == 429
            assert same.post("/score", json={"text": "x" * 20_000}).status_code == 202
            assert same.options("/score").status_code == 200
            assert other.post("/score", json=items).status_code == 202
        assert not answered([client for client in clients if client is not refused])


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/score"), ("OPTIONS", "/score"), ("POST", "/score/x/cancel")]
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_requests_without_texts_have_no_large_body(port, method, path, is_chunked):
    body = b"x" * 70_000
    with from_address("127.0.1.6", port) as http:
        content = iter([body]) if is_chunked else body
        response = http.request(method, path, content=content)
    assert response.status_code == 413
    assert response.json()["type"] == "body_too_large"


def test_clients_behind_the_edge_have_shares_of_their_own(web, port):
    share = web.settings.max_uploads // 2
    assert share == 1
    head = (
        b"POST /batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        b"Content-Length: 1000\r\n\r\n"
    )
    with socket.socket() as holder:
        holder.bind(("127.0.0.4", 0))
        holder.connect(("127.0.0.1", port))
        # An upload passes at once: it takes a slot before it is complete.
        holder.sendall(head)
        wait_until(lambda: web.num_open("upload") == 1)
        upload = {"content": b'{"text": "x"}\n', "headers": {"Content-Type": "application/jsonl"}}
        with from_address("127.0.0.4", port) as same, from_address("127.0.0.5", port) as other:
            assert same.post("/batches", **upload).status_code == 503
            assert other.post("/batches", **upload).status_code == 202


def test_key_and_quota_pass_through_the_edge_and_into_none_of_its_logs(web_redis, tmp_path):
    token, key = new_key("alice", ["score"], requests_per_minute=2)
    server = WebServer(tmp_path, web_redis.url, auth="keys", trusted_proxies="127.0.0.1").start()
    headers = {"Authorization": f"Bearer {token}"}
    with connect(server.settings) as client:
        KeyStore(client).add(key)
    with edge(server.url, tmp_path) as running, from_address("127.0.0.11", running.port) as http:
        wait_until(lambda: http.get("/score/x", headers=headers).status_code == 404)
        assert http.post("/score", json={"text": "x"}).status_code == 401
        answers = [http.post("/score", json={"text": "x"}, headers=headers) for _ in range(3)]
        assert http.get("/metrics", headers=headers).status_code == 404
    assert server.stop() == 0
    assert [each.status_code for each in answers] == [202, 202, 429]
    assert answers[0].headers["RateLimit"] == '"requests";r=1;t=30'
    assert answers[2].json()["type"] == "quota_exceeded"
    assert not [path for path in tmp_path.glob("*.log") if token in path.read_text()]
    submitted = [x for x in server.log_lines("request_served") if x["method"] == "POST"]
    assert [line["client"] for line in submitted] == ["127.0.0.11", *["key:alice"] * 3]


NETWORKS = [
    ("2001:db8:1:2::1", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2:ffff::"),
    ("2001:db8:1:3::1",),
    ("2001:db8::1", "2001:db8::1:2:3:4", "2001:db8:0:0:1::"),
    ("2001:db8:1::1", "2001:db8:1:0:5:6:7:8", "2001:db8:1:0:5::"),
    ("2001::5:1:2:3:4", "2001::5:9:2:3:4"),
    ("2001::6:1:2:3:4",),
    ("2001:db8::7:1:2:3:4",),
    ("fe80::1", "fe80::ffff:1:2:3"),
]


def test_addresses_of_one_ipv6_network_are_one_client(tmp_path):
    port = free_port()
    (client_map,) = re.findall(r"^    map \$remote_addr \$client {.*?^    }\n", CONF, re.M | re.S)
    conf = (
        f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{ access_log off;\n{client_map}"
        f"server {{ listen 127.0.0.1:{port}; set_real_ip_from 127.0.0.1;"
        "real_ip_header X-Test-Address; return 200 $client; } }\n"
    )
    with nginx(tmp_path, conf, port), httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
        keys = [
            {http.get("/", headers={"X-Test-Address": address}).text for address in network}
            for network in NETWORKS
        ]
    assert [len(each) for each in keys] == [1] * len(NETWORKS)
    assert len(set.union(*keys)) == len(NETWORKS)
