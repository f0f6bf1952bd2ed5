"""Slow clients in numbers: the others are served at once, and slots come back."""

import select
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress

import httpx
import orjson
import pytest

from app.requests import upload_stream
from app.server.header_timeout import HEADER_S
from app.server.open_files import OTHER_FILES
from contract.settings import REPOSITORY
from tests.conftest import HANG_S, LIMITS, wait_until
from tests.web import Outcomes, WebServer

TIMEOUT_S = 8
# On a busy machine too. A client that waited for a slow one would wait for HEADER_S or TIMEOUT_S.
PROMPT_S = 4
# No test waits for this long.
WAIT_S = 300
NUM_SLOW = 100
NUM_OF_A_KIND = 30


@pytest.fixture(scope="module")
def web(web_redis, tmp_path_factory):
    """A server that disconnects clients who make no progress for `TIMEOUT_S`."""
    times = {"web_timeout_s": TIMEOUT_S, "max_wait_s": 3}
    server = WebServer(tmp_path_factory.mktemp("web"), web_redis.url, **times).start()
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


def connected(web: WebServer, num_clients: int, request: bytes):
    """Clients that send `request` and read nothing."""
    return each_connected(web, [request] * num_clients)


@contextmanager
def each_connected(web: WebServer, requests: list[bytes]):
    """Clients that send one of `requests` each and read nothing."""
    clients = []
    for request in requests:
        client = socket.create_connection(("127.0.0.1", web.port), timeout=10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(request)
        clients.append(client)
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


def assert_prompt(http) -> None:
    """Short requests and submissions are answered at once."""
    for method, path, body in (("GET", "/healthz", None), ("POST", "/score", {"text": "x"})) * 3:
        began_at = time.monotonic()
        assert http.request(method, path, json=body).is_success
        assert time.monotonic() - began_at < PROMPT_S


HEAD = b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"


# Nothing, half a header, no body, half a body, half a chunk, an upload without its body.
STALLED = (
    b"",
    b"POST /score HTTP/1.1\r\nHost: ",
    HEAD + b"Content-Length: 9\r\n\r\n",
    HEAD + b"Content-Length: 9\r\n\r\nx",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\nx",
    b"POST /batches HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
    b"Content-Type: application/x-ndjson\r\n\r\n",
)


def test_clients_that_stall_delay_no_others_and_are_cut_off(http, web):
    """All kinds at once, so that their time limits pass together."""
    with each_connected(web, [*STALLED] * NUM_OF_A_KIND) as clients:
        assert_prompt(http)
        # The last byte of an answer, or of none.
        for client in clients:
            client.settimeout(4 * TIMEOUT_S)
            while client.recv(65536):
                pass


def test_bodies_that_trickle_delay_no_others_and_are_cut_off(http, web):
    with connected(web, NUM_SLOW, HEAD + b"Content-Length: 99999\r\n\r\n") as clients:
        until = time.monotonic() + 5 * TIMEOUT_S
        refused = set()
        while len(refused) < NUM_SLOW:
            assert time.monotonic() < until
            for client in clients:
                if client not in refused and trickled(client):
                    refused.add(client)
            assert_prompt(http)
            time.sleep(0.1)


def trickled(client: socket.socket) -> bytes:
    """Send one byte more; what the server has answered."""
    client.setblocking(False)
    try:
        client.sendall(b"x")
        return client.recv(65536)
    except BlockingIOError:
        return b""
    except ConnectionError:
        return b"reset"


def test_clients_that_do_not_take_their_answer_are_cut_off(http, web):
    task_id = http.post("/score", json={"text": "x"}).json()["id"]
    outcomes = Outcomes(web)
    outcomes.succeed(task_id, {"large": "x" * 20_000_000})
    outcomes.client.close()
    request = f"GET /score/{task_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with connected(web, 20, request):
        assert_prompt(http)
        wait_until(lambda: num_connections(web) <= 1, timeout_s=3 * TIMEOUT_S)


def num_connections(web: WebServer) -> int:
    """Connections that the web server holds open."""
    (worker,) = web.workers()
    return sum(
        each.laddr.port == web.port and each.status == "ESTABLISHED"
        for each in worker.net_connections("tcp")
    )


NDJSON_HEAD = (
    b"POST /batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
    b"Content-Length: 99999999\r\n\r\n"
)


def test_upload_below_the_least_speed_is_refused_and_gives_its_slot_back(http, web):
    began_at = time.monotonic()
    with connected(web, 1, NDJSON_HEAD) as (client,):
        wait_until(lambda: web.num_open("upload") == 1)
        # A tenth of the least speed, in steps that no time-out between two bytes would notice.
        step = b" " * (upload_stream.MIN_BYTES_PER_S // 100)
        while web.num_open("upload"):
            assert time.monotonic() < began_at + 3 * TIMEOUT_S
            # The server may have closed the connection since it was asked.
            with suppress(ConnectionError):
                client.sendall(step)
            time.sleep(0.1)
        assert time.monotonic() - began_at > TIMEOUT_S / 2
        assert_prompt(http)


FORM_HEAD = (
    b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
)


def test_uploads_that_stall_are_answered_after_one_reserve(web):
    """Of a batch and of a file."""
    began_at = time.monotonic()
    with each_connected(web, [NDJSON_HEAD + b" ", FORM_HEAD + b" "]) as clients:
        for client in clients:
            client.settimeout(3 * TIMEOUT_S)
            assert client.recv(12) == b"HTTP/1.1 400"
            assert TIMEOUT_S / 2 < time.monotonic() - began_at < 1.8 * TIMEOUT_S


def test_upload_above_the_least_speed_may_take_any_time(http):
    def body():
        for _ in range(2 * TIMEOUT_S * 10):
            yield b" " * (upload_stream.MIN_BYTES_PER_S // 5) + b"\n"
            time.sleep(0.1)
        yield b'{"text": "x"}\n'

    headers = {"Content-Type": "application/x-ndjson"}
    assert http.post("/batches", content=body(), headers=headers).status_code == 202


def test_uploads_of_one_client_leave_slots_to_others(patient):
    """On a server that does not answer a stalled upload soon."""
    # All of 127.0.0.0/8 reaches the server; each address is a client.
    share = patient.settings.max_uploads // 2
    with connected(patient, share + 1, NDJSON_HEAD) as clients:
        wait_until(lambda: patient.num_open("upload") == share)
        (answer,) = first_answers(clients, 1)
        assert b" 503 " in answer
        with from_another_address(patient) as other:
            response = other.post("/batches", content=b'{"text": "x"}\n', headers=NDJSON)
            assert response.status_code == 202


NDJSON = {"Content-Type": "application/x-ndjson"}


def first_answers(clients: list[socket.socket], number: int) -> list[bytes]:
    """The beginnings of all answers that come until there are `number`, and soon after."""
    wait_until(lambda: len(readable(clients)) >= number, timeout_s=30)
    # More would come at once.
    time.sleep(0.5)
    return [client.recv(100) for client in readable(clients)]


def readable(clients: list[socket.socket]) -> list[socket.socket]:
    """The clients that have something to read."""
    return select.select(clients, [], [], 0)[0]


def from_another_address(web: WebServer) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address="127.0.0.2", limits=LIMITS)
    return httpx.Client(base_url=web.url, transport=transport, timeout=60)


@pytest.fixture
def small(web_redis, tmp_path):
    """A server on which one client may have four waits, two streams and eight connections."""
    server = WebServer(tmp_path, web_redis.url, web_connections=16).start()
    yield server
    assert server.stop() == 0


def test_waits_streams_and_connections_of_one_client_leave_some_to_others(small):
    with from_another_address(small) as other:
        path = other.post("/score", json={"text": "x"}).headers["Location"]
        wait = f"GET {path}?wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        stream = f"GET {path}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        with connected(small, 4, wait), connected(small, 2, stream), connected(small, 2, b""):
            began_at = time.monotonic()
            healthz = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
            # The answer may be lost, as the server closes the connection at once.
            with suppress(ConnectionError), connected(small, 1, healthz) as (refused,):
                assert whole(refused)[:12] != b"HTTP/1.1 200"
            assert time.monotonic() - began_at < HEADER_S
            began_at = time.monotonic()
            assert other.get(path, params={"wait": "1"}).status_code == 200
            assert time.monotonic() - began_at > 0.5
            with other.stream("GET", f"{path}/events") as events:
                assert events.status_code == 200


def test_requests_that_arrive_while_the_server_stands_still_are_answered(patient):
    """On connections that are new, and on some that had a request before."""
    healthz = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    (worker,) = patient.workers()
    before = num_connections(patient)
    with ExitStack() as stack:
        clients = stack.enter_context(connected(patient, 5, healthz))
        for client in clients:
            answer = b""
            while b'{"status":"ok"}\n' not in answer:
                received = client.recv(1000)
                assert received
                answer += received
        clients += stack.enter_context(connected(patient, 5, b""))
        wait_until(lambda: num_connections(patient) == before + len(clients))
        worker.suspend()
        try:
            for client in clients:
                client.sendall(healthz)
            # The time that it waits for a header passes.
            time.sleep(HEADER_S + 1)
        finally:
            worker.resume()
        for client in clients:
            client.settimeout(20)
            assert client.recv(12) == b"HTTP/1.1 200"


def test_header_that_trickles_is_cut_off(patient):
    until = time.monotonic() + 3 * HEADER_S
    with connected(patient, 1, b"GET /healthz HTTP/1.1\r\nHost: ") as (client,):
        while not trickled(client):
            assert time.monotonic() < until
            time.sleep(0.01)


def with_open_files(server: WebServer, limit: int) -> WebServer:
    """Give the server a hard limit of open files."""
    server.command = ["sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh", *server.command]
    return server


def test_slots_follow_the_connections_that_open_files_allow(web_redis, tmp_path):
    server = with_open_files(WebServer(tmp_path, web_redis.url), OTHER_FILES + 16).start()
    try:
        (warning,) = server.log_lines("open_files_limit_connections")
        assert (warning["connections"], warning["wanted_connections"]) == (16, 4096)
        with server.client() as http:
            path = http.post("/score", json={"text": "x"}).headers["Location"]
        stream = f"GET {path}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        # A client gets half of the four streams.
        with connected(server, 3, stream) as clients:
            answers = [answer[:12] for answer in first_answers(clients, 3)]
        assert sorted(answers) == [b"HTTP/1.1 200", b"HTTP/1.1 200", b"HTTP/1.1 503"]
    finally:
        assert server.stop() == 0


def test_too_few_open_files_are_refused_at_the_start(web_redis, tmp_path):
    server = with_open_files(WebServer(tmp_path, web_redis.url), OTHER_FILES + 15)
    ended = subprocess.run(
        server.command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=HANG_S
    )
    assert ended.returncode != 0
    assert ended.stderr.startswith("evascore: the hard limit of open files allows 15 connections")
    assert ended.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def patient(web_redis, tmp_path_factory):
    """A server on which clients may wait for long, and a worker that never ends a job."""
    folder = tmp_path_factory.mktemp("patient")
    times = {"max_wait_s": WAIT_S, "web_timeout_s": WAIT_S}
    server = WebServer(folder, web_redis.url, **times).start()
    outcomes = Outcomes(server)
    outcomes.pose_as_worker({"name": "w"})
    outcomes.client.close()
    yield server
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("kind", "request_line"),
    [
        ("wait", f"GET {{path}}?wait={WAIT_S}"),
        ("wait", f"POST /score?wait={WAIT_S}"),
        ("wait", "POST /v1/completions"),
        ("wait", f"GET {{batch}}?wait={WAIT_S}"),
        ("wait", f"GET {{batch}}/results?wait={WAIT_S}"),
        ("stream", "GET {path}/events"),
        ("stream", "GET {batch}/events"),
    ],
)
@pytest.mark.parametrize("more", [b"", b"GET / HTTP"], ids=["idle", "pipelined"])
def test_client_that_hangs_up_frees_its_slot(patient, kind, request_line, more):
    with patient.client() as http:
        path = http.post("/score", json={"text": "x"}).headers["Location"]
        batch = http.post("/batches", content=b'{"text": "x"}\n', headers=NDJSON)
        line = request_line.format(path=path, batch=batch.headers["Location"])
        asked = {"prompt": "x", "max_tokens": 0, "echo": True, "logprobs": 1}
        body = orjson.dumps(asked if "completions" in line else {"text": "x"})
        head = f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        if line.startswith("POST"):
            sent = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body + more
        else:
            sent = f"{head}\r\n".encode() + more
        with connected(patient, 30, sent):
            wait_until(lambda: patient.num_open(kind) == 30)
        began_at = time.monotonic()
        wait_until(lambda: patient.num_open(kind) == 0, timeout_s=60)
        # A stream would notice it by its next heartbeat, after 15 s; a wait would go on.
        assert time.monotonic() - began_at < 10


def test_bodies_of_one_client_leave_memory_to_others(web_redis, tmp_path):
    limits = {"max_body_bytes": 2**20, "max_text_bytes": 1000}
    server = WebServer(tmp_path, web_redis.url, **limits).start()
    head = b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n"
    # The last byte is missing.
    unfinished = head + b" " * (2**20 - 1)
    try:
        with connected(server, 10, unfinished) as clients:
            (answer,) = first_answers(clients, 1)
            assert b" 503 " in answer
            with server.client() as http, from_another_address(server) as other:
                # A small body needs no room.
                assert http.post("/score", json={"text": "x"}).status_code == 202
                items = {"items": [{"text": "x" * 1000}] * 200}
                assert http.post("/score", json=items).status_code == 503
                assert other.post("/score", json=items).status_code == 202
    finally:
        assert server.stop() == 0


@pytest.fixture(scope="module")
def scarce(web_redis, tmp_path_factory):
    """A server with 16 MiB for answers that wait to be sent, half of it for one client."""
    limits = {"max_body_bytes": 2**20, "max_text_bytes": 1000}
    server = WebServer(tmp_path_factory.mktemp("scarce"), web_redis.url, **limits).start()
    yield server
    assert server.stop() == 0


def tokenization(web: WebServer) -> bytes:
    """A request whose answer takes 4 MiB until it is sent."""
    content = b'{"prompt":"' + b"x" * 1_048_000 + b'"}'
    head = "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def large_result(web: WebServer, **headers: str) -> bytes:
    """A request whose answer takes half a MiB while it is sent.

    Args:
        headers: of the submission of its job.
    """
    with web.client() as http:
        task_id = http.post("/score", json={"text": "x"}, headers=headers).json()["id"]
    outcomes = Outcomes(web)
    outcomes.succeed(task_id, {"large": "x" * 20_000_000})
    outcomes.client.close()
    return f"GET /score/{task_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def uploaded_file(web: WebServer) -> bytes:
    """A request whose answer takes half a MiB while it is sent."""
    with web.client() as http:
        sent = {"data": {"purpose": "batch"}, "files": {"file": ("a.jsonl", b"x" * 20_000_000)}}
        file_id = http.post("/v1/files", **sent).json()["id"]
    return f"GET /v1/files/{file_id}/content HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("request_of", "num_fitting"), [(tokenization, 2), (large_result, 16), (uploaded_file, 16)]
)
def test_answers_that_one_client_does_not_read_leave_memory_to_others(
    scarce, request_of, num_fitting
):
    request = request_of(scarce)
    with connected(scarce, num_fitting, request) as clients:
        assert all(b" 200 " in answer for answer in first_answers(clients, num_fitting))
        with connected(scarce, 1, request) as further:
            (answer,) = first_answers(further, 1)
            assert b" 503 " in answer
        with scarce.client() as http, from_another_address(scarce) as other:
            # A small answer needs no room.
            assert http.post("/tokenize", json={"prompt": "x"}).status_code == 200
            assert other.post("/tokenize", json={"prompt": "x" * 1_000_000}).status_code == 200
    with scarce.client() as http:
        wait_until(
            lambda: http.post("/tokenize", json={"prompt": "x" * 1_000_000}).status_code == 200
        )


def test_accepted_job_is_named_although_no_room_is_left_for_its_result(scarce):
    key = {"Idempotency-Key": "large"}
    request = large_result(scarce, **key)
    with connected(scarce, 16, request) as clients, scarce.client() as http:
        first_answers(clients, 16)
        answer = http.post("/score", json={"text": "x"}, headers=key)
        assert answer.status_code == 202
        path = answer.headers["Location"]
        assert path == answer.json()["links"]["self"]
        assert "result" not in answer.json()
    with scarce.client() as http:
        wait_until(lambda: http.get(path).status_code == 200)
        assert len(http.get(path).json()["result"]["large"]) == 20_000_000


NUM_AT_ONCE = 500
# So few take turns at Redis in time on a busy machine, too.
NUM_SENT_AT_ONCE = 50


def test_hundreds_that_wait_and_hundreds_that_stream_are_all_served(patient):
    (worker,) = patient.workers()
    outcomes = Outcomes(patient)
    with patient.client() as http:
        paths = [http.post("/score", json={"text": "x"}).headers["Location"] for _ in range(10)]
    before = worker.memory_info().rss

    def requests(rest: str) -> list[bytes]:
        return [
            f"GET {paths[n % 10]}{rest} HTTP/1.1\r\nHost: localhost\r\n"
            "Connection: close\r\n\r\n".encode()
            for n in range(NUM_AT_ONCE)
        ]

    with (
        each_open(patient, "stream", requests("/events")) as streaming,
        each_open(patient, "wait", requests(f"?wait={WAIT_S}")) as waiting,
    ):
        assert patient.num_open("stream") == NUM_AT_ONCE
        # Gevent has ten for names of hosts.
        assert worker.num_threads() < 16
        assert worker.memory_info().rss - before < 200e6
        with patient.client() as http:
            began_at = time.monotonic()
            assert http.get("/healthz").status_code == 200
            assert time.monotonic() - began_at < PROMPT_S
        for path in paths:
            outcomes.succeed(path.rpartition("/")[2], {"num_bytes": 1})
        answers = [whole(client) for client in waiting + streaming]
        outcomes.client.close()
    assert all(b'"state":"SUCCESS"' in answer for answer in answers)
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)


@contextmanager
def each_open(web: WebServer, kind: str, requests: list[bytes]):
    """Clients that send one of `requests` each, once the server counts all as open."""
    with ExitStack() as stack:
        clients: list[socket.socket] = []
        for at in range(0, len(requests), NUM_SENT_AT_ONCE):
            some = each_connected(web, requests[at : at + NUM_SENT_AT_ONCE])
            clients.extend(stack.enter_context(some))
            wait_until(lambda: web.num_open(kind) == len(clients))
        yield clients


def whole(client: socket.socket) -> bytes:
    """The answer to the end of its connection."""
    client.settimeout(60)
    return b"".join(iter(lambda: client.recv(65536), b""))


def test_stopping_server_cuts_off_the_slowest_and_ends_by_itself(web_redis, tmp_path):
    server = WebServer(tmp_path, web_redis.url, drain_s=0.5).start()
    with connected(server, 1, HEAD + b"Content-Length: 9\r\n\r\nhalf"):
        wait_until(lambda: server.num_open_connections() == 1)
        assert server.stop() == 0
    # Its master would have killed it before it could say so.
    assert len(server.log_lines("Connections cut off: 1")) == 1
