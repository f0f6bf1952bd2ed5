"""API keys over HTTP: who may do what, whose a task is, and what needs no key."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

import evascore
from app.service.key_ring import MAX_AGE_S
from contract.api_keys import Scope, new_key
from contract.errors import ScoringFailed
from contract.settings import REPOSITORY
from contract.store.key_store import KeyStore
from tests.conftest import HANG_S, LIMITS, wait_until
from tests.web import Outcomes, WebServer


class Keys:
    """Makes keys of the module's web server, and clients that send them."""

    def __init__(self, web: WebServer, outcomes: Outcomes) -> None:
        self.store, self._web = KeyStore(outcomes.client), web
        self._clients: list[httpx.Client] = []

    def client(self, name: str, *scopes: Scope, **limits) -> httpx.Client:
        """A client with a new key of this owner."""
        token, key = new_key(name, scopes or ("score", "bulk"), **limits)
        self.store.add(key)
        client = self.with_token(token)
        wait_until(lambda: client.get("/score/x").status_code != 401)
        return client

    def same(self, client: httpx.Client) -> httpx.Client:
        """Another client, with connections of its own, that sends the token of `client`."""
        return self.with_token(client.headers["Authorization"].removeprefix("Bearer "))

    def with_token(self, token: str) -> httpx.Client:
        """A client that sends `token`."""
        client = httpx.Client(
            base_url=self._web.url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
            limits=LIMITS,
        )
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Close the clients."""
        for client in self._clients:
            client.close()


@pytest.fixture(scope="module")
def web(web_redis, tmp_path_factory) -> Iterator[WebServer]:
    server = WebServer(tmp_path_factory.mktemp("web"), web_redis.url, auth="keys").start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def made(web, outcomes) -> Iterator[Keys]:
    keys = Keys(web, outcomes)
    yield keys
    keys.close()


@pytest.fixture(scope="module")
def alice(made) -> httpx.Client:
    return made.client("alice")


@pytest.fixture(scope="module")
def bob(made) -> httpx.Client:
    return made.client("bob")


NEEDS_A_KEY = [
    ("POST", "/score"),
    ("GET", "/score/abc"),
    ("GET", "/score/abc/events"),
    ("POST", "/score/abc/cancel"),
    ("DELETE", "/score/abc"),
    ("POST", "/v1/completions"),
    ("POST", "/batches"),
    ("GET", "/batches/abc"),
    ("GET", "/batches/abc/results"),
    ("GET", "/batches/abc/events"),
    ("DELETE", "/batches/abc"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files/abc/content"),
    ("POST", "/v1/batches"),
    ("GET", "/metrics"),
    ("GET", "/stats"),
]
OPEN = ["/healthz", "/readyz", "/info", "/", "/status", "/docs/", "/openapi.json"]
# lm-eval sends its key to /v1/completions alone.
OPEN_TO_LM_EVAL = ["/tokenizer_info", "/tokenize", "/detokenize"]


@pytest.mark.parametrize(("method", "path"), NEEDS_A_KEY)
@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer evs_000000000000_" + "a" * 32, "Basic YTpi", "Bearer \xff"],
)
def test_request_without_a_valid_key_is_refused(http, method, path, header):
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    response = http.request(method, path, headers=headers, content=b"x")
    assert response.status_code == 401, response.text
    assert response.json()["type"] == "unauthorized"
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", OPEN)
def test_what_shows_nothing_of_anyone_needs_no_key(http, path):
    assert http.get(path).status_code in (200, 503)


def test_every_route_of_the_description_needs_a_key_or_is_known_to_be_open(http):
    open_paths = [*OPEN, *OPEN_TO_LM_EVAL, "/v1/models"]
    described = http.get("/openapi.json").json()["paths"]
    for path, methods in described.items():
        filled = re.sub(r"{\w+}", "abc", path)
        for method in methods:
            status = http.request(method, filled, content=b"x").status_code
            assert (status == 401) != (path in open_paths), (method, path)


def test_lm_eval_needs_its_key_for_completions_alone(made, http):
    """Its requests: OPENAI_API_KEY is the Bearer token, and the tokenizer is asked without it."""
    assert http.get("/tokenizer_info").status_code == 200
    asked = {"prompt": "a b", "add_special_tokens": False}
    tokens = http.post("/tokenize", json=asked).json()["tokens"]
    assert http.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": "a b"}
    prompt = {"prompt": [tokens], "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    assert http.post("/v1/completions", json=prompt).status_code == 401
    # What is missing is a worker, not a key.
    answer = made.client("lm-eval", "score").post("/v1/completions", json=prompt)
    assert (answer.status_code, answer.json()["type"]) == (503, "worker_unavailable")


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_stranger_may_not_have_much_converted(http, path):
    response = http.post(path, json={"prompt": "x" * 1024**2})
    assert (response.status_code, response.json()["limit_bytes"]) == (413, 1024**2)


def test_key_does_what_its_scopes_say(made):
    scorer, bulk = made.client("s", "score"), made.client("b", "bulk")
    metrics, admin = made.client("m", "metrics"), made.client("adm", "admin")
    lines = b'{"text": "x"}\n'
    headers = {"Content-Type": "application/x-ndjson"}

    def statuses(client: httpx.Client) -> list[int]:
        return [
            client.post("/score", json={"text": "x"}).status_code,
            client.post("/batches", content=lines, headers=headers).status_code,
            client.get("/metrics").status_code,
        ]

    assert statuses(scorer) == [202, 403, 403]
    assert statuses(bulk) == [403, 202, 403]
    assert statuses(metrics) == [403, 403, 200]
    assert statuses(admin) == [202, 202, 200]
    refused = scorer.get("/stats").json()
    assert refused["type"] == "forbidden"
    assert refused["detail"] == "This request needs the scope metrics; this key has score."


def test_task_of_another_key_does_not_exist(alice, bob):
    task_id = alice.post("/score", json={"text": "mine"}).json()["id"]
    for method, path in (
        ("GET", f"/score/{task_id}"),
        ("GET", f"/score/{task_id}/events"),
        ("POST", f"/score/{task_id}/cancel"),
        ("DELETE", f"/score/{task_id}"),
    ):
        response = bob.request(method, path)
        assert response.status_code == 404, (method, path)
        never = bob.request(method, path.replace(task_id, "a" * 32))
        assert {**response.json(), "request_id": ""} == {**never.json(), "request_id": ""}
    assert alice.get(f"/score/{task_id}").status_code == 200
    assert alice.delete(f"/score/{task_id}").status_code == 204
    assert alice.get(f"/score/{task_id}").status_code == 410
    assert bob.get(f"/score/{task_id}").status_code == 404


def test_batch_of_another_key_does_not_exist(alice, bob):
    headers = {"Content-Type": "application/x-ndjson"}
    batch_id = alice.post("/batches", content=b'{"text": "x"}\n', headers=headers).json()["id"]
    for method, path in (
        *(("GET", ""), ("GET", "/results"), ("GET", "/events")),
        *(("POST", "/cancel"), ("DELETE", "")),
    ):
        assert bob.request(method, f"/batches/{batch_id}{path}").status_code == 404
    # Not even that it is a batch.
    answers = [bob.get(f"/score/{each}").json() for each in (batch_id, "a" * 32)]
    assert answers[0]["detail"] == answers[1]["detail"]
    assert "ID of a batch" in alice.get(f"/score/{batch_id}").json()["detail"]
    assert alice.get(f"/batches/{batch_id}").status_code == 200
    assert alice.delete(f"/batches/{batch_id}").status_code == 204


def test_file_of_another_key_does_not_exist(alice, bob):
    form = {"data": {"purpose": "batch"}, "files": {"file": ("f", b'{"a": 1}')}}
    file_id = alice.post("/v1/files", **form).json()["id"]
    assert alice.get(f"/v1/files/{file_id}/content").content == b'{"a": 1}'
    asked = {
        "input_file_id": file_id,
        "endpoint": "/v1/completions",
        "completion_window": "24h",
    }
    assert bob.get(f"/v1/files/{file_id}").status_code == 404
    assert bob.get(f"/v1/files/{file_id}/content").status_code == 404
    assert bob.delete(f"/v1/files/{file_id}").status_code == 404
    assert bob.post("/v1/batches", json=asked).status_code == 404
    batch_id = alice.post("/v1/batches", json=asked).json()["id"]
    assert alice.get(f"/v1/batches/{batch_id}").status_code == 200
    assert bob.get(f"/v1/batches/{batch_id}").status_code == 404
    assert bob.get(f"/v1/files/output-{batch_id}/content").status_code == 404
    assert bob.delete(f"/v1/files/output-{batch_id}").status_code == 404


def test_idempotency_keys_of_two_owners_do_not_meet(alice, bob):
    headers = {"Idempotency-Key": "the-same"}
    body = {"text": "equal"}
    first = alice.post("/score", json=body, headers=headers)
    again = alice.post("/score", json=body, headers=headers)
    theirs = bob.post("/score", json=body, headers=headers)
    assert first.json()["id"] == again.json()["id"] != theirs.json()["id"]
    assert "Idempotency-Replayed" not in theirs.headers
    assert bob.post("/score", json={"text": "other"}, headers=headers).status_code == 422


def test_rotated_key_reads_what_the_old_one_submitted(made):
    client = made.client("carol")
    task_id = client.post("/score", json={"text": "x"}).json()["id"]
    (old,) = [key for key in made.store.all() if key.name == "carol"]
    token, _ = made.store.rotate(old, grace_s=0)
    rotated = made.with_token(token)
    wait_until(lambda: rotated.get(f"/score/{task_id}").status_code == 200)
    wait_until(lambda: client.get(f"/score/{task_id}").status_code == 401)
    assert "expired" in client.get(f"/score/{task_id}").json()["detail"]


def test_revoked_key_ends_within_two_seconds_without_restart(made):
    client = made.client("dave")
    made.store.revoke([key for key in made.store.all() if key.name == "dave"])
    # On a busy machine, an answer takes longer.
    assert MAX_AGE_S < 2
    wait_until(lambda: client.get("/score/x").status_code == 401, timeout_s=15)


LINE = b'{"text": "x", "custom_id": "a"}\n'
FORM = (
    b"--b\r\nContent-Disposition: form-data; name=purpose\r\n\r\nbatch\r\n"
    b"--b\r\nContent-Disposition: form-data; name=file; filename=f\r\n\r\n"
)
UPLOADS = {
    "batch": ("/batches", "application/x-ndjson", LINE, LINE),
    "file": ("/v1/files", "multipart/form-data; boundary=b", FORM, LINE + b"\r\n--b--\r\n"),
}


@pytest.mark.parametrize(("path", "media_type", "first", "last"), UPLOADS.values(), ids=UPLOADS)
def test_revoked_key_ends_an_upload_that_goes_on(made, path, media_type, first, last):
    owner = f"ursula-{path[1:].replace('/', '-')}"
    client = made.client(owner)
    # It has connections of its own.
    other = made.same(client)

    def upload(while_it_goes_on) -> httpx.Response:
        def pieces() -> Iterator[bytes]:
            yield first
            while_it_goes_on()
            yield last

        return client.post(path, content=pieces(), headers={"Content-Type": media_type})

    def revoke() -> None:
        made.store.revoke([key for key in made.store.all() if key.name == owner])
        wait_until(lambda: other.get("/score/x").status_code == 401)

    assert upload(lambda: None).status_code in (200, 202)
    refused = upload(revoke)
    assert (refused.status_code, refused.json()["type"]) == (401, "unauthorized")


def test_revoked_key_ends_its_event_streams(made, outcomes):
    client = made.client("victor")
    other = made.same(client)
    task_id = client.post("/score", json={"text": "x"}).json()["id"]
    with client.stream("GET", f"/score/{task_id}/events") as stream:
        lines = stream.iter_lines()
        assert "event: job" in next(line for line in lines if line.startswith("event"))
        made.store.revoke([key for key in made.store.all() if key.name == "victor"])
        wait_until(lambda: other.get("/score/x").status_code == 401)
        outcomes.fail(task_id, ScoringFailed("broken"))
        assert not [line for line in lines if line.startswith("event")]


def test_no_token_is_in_the_log_of_the_web_server(made, web):
    token, key = new_key("eve", ["score"])
    made.store.add(key)
    client = made.with_token(token)
    wait_until(lambda: client.post("/score", json={"text": "x"}).status_code == 202)
    log = Path(web.log).read_text()
    assert token not in log
    assert token.split("_", 2)[2] not in log


def test_quota_is_reported_and_refused_with_the_time_to_wait(made):
    client = made.client("frank", requests_per_minute=2, bytes_per_minute=1000)
    began_at = time.monotonic()
    answers = [client.post("/score", json={"text": "x" * 100}) for _ in range(3)]
    elapsed_s = time.monotonic() - began_at
    assert [each.status_code for each in answers] == [202, 202, 429]
    policy = '"requests";q=2;w=60, "bytes";q=1000;w=60;qu="content-bytes"'
    assert {each.headers["RateLimit-Policy"] for each in answers} == {policy}
    assert answers[0].headers["RateLimit"] == '"requests";r=1;t=30, "bytes";r=900;t=6'
    refused = answers[2]
    problem = refused.json()
    assert (problem["type"], problem["retryable"]) == ("quota_exceeded", True)
    assert 30 - elapsed_s <= int(refused.headers["Retry-After"]) <= 30
    assert problem["retry_after_s"] == int(refused.headers["Retry-After"])
    headers = {"Content-Type": "application/x-ndjson"}
    upload = client.post("/batches", content=b'{"text": "x"}\n', headers=headers)
    assert (upload.status_code, upload.json()["type"]) == (429, "quota_exceeded")
    assert "RateLimit" not in client.get("/score/x").headers


def a_form(num_bytes: int) -> dict:
    """A file that cannot be compressed."""
    return {"data": {"purpose": "batch"}, "files": {"file": ("f", os.urandom(num_bytes))}}


def test_file_takes_a_request_of_the_quota(made):
    client = made.client("olga", requests_per_minute=1, bytes_per_minute=1000)
    began_at = time.monotonic()
    first, second = (client.post("/v1/files", **a_form(2000)) for _ in range(2))
    elapsed_s = time.monotonic() - began_at
    assert first.status_code == 200
    assert first.headers["RateLimit"].startswith('"requests";r=0;t=60, "bytes";r=1000;')
    assert (second.status_code, second.json()["type"]) == (429, "quota_exceeded")
    assert 60 - elapsed_s <= int(second.headers["Retry-After"]) <= 60


def asked_batch(client: httpx.Client, content: bytes) -> dict:
    """Upload `content`, and the body that makes a batch of it."""
    form = {"data": {"purpose": "batch"}, "files": {"file": ("f", content)}}
    file_id = client.post("/v1/files", **form).json()["id"]
    return {"input_file_id": file_id, "endpoint": "/v1/completions", "completion_window": "24h"}


@pytest.mark.parametrize(
    ("owner", "content", "headers", "status"),
    [
        ("quentin", b" \n" * 1000, {}, 422),
        ("rosa", b'{"custom_id": "a"}', {"Idempotency-Key": "files-1"}, 200),
    ],
    ids=["refused", "repeated"],
)
def test_reading_a_file_takes_a_request_of_the_quota(made, owner, content, headers, status):
    client = made.client(owner, requests_per_minute=3)
    body = asked_batch(client, content)
    answers = [client.post("/v1/batches", json=body, headers=headers) for _ in range(3)]
    assert [each.status_code for each in answers] == [status, status, 429]
    assert answers[1].headers["RateLimit"].startswith('"requests";r=0;')


def test_batch_of_a_file_needs_a_slot_for_uploads(made, web):
    client, metrics = made.client("steve"), made.client("tess", "metrics")
    body = asked_batch(client, b'{"custom_id": "a"}')
    head = (
        f"POST /batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        f"Authorization: {client.headers['Authorization']}\r\nContent-Length: 1000\r\n\r\n"
    )
    with ExitStack() as stack:
        share = web.settings.max_uploads // 2
        for _ in range(share):
            holder = stack.enter_context(socket.create_connection(("127.0.0.1", web.port)))
            holder.sendall(head.encode())
        held = f'evascore_http_open_requests{{kind="upload"}} {share}.0\n'
        wait_until(lambda: held in metrics.get("/metrics").text)
        refused = client.post("/v1/batches", json=body)
    assert (refused.status_code, refused.json()["type"]) == (503, "overloaded")
    assert "open uploads" in refused.json()["detail"]
    wait_until(lambda: client.post("/v1/batches", json=body).status_code == 200)


def test_files_of_a_key_fill_no_more_than_its_share_of_redis(made, web, alice):
    share_bytes = 400_000
    client = made.client("paul", queue_share=share_bytes / web.settings.max_redis_bytes)
    first, second = (client.post("/v1/files", **a_form(300_000)) for _ in range(2))
    assert first.status_code == 200
    assert (second.status_code, second.json()["type"]) == (503, "overloaded")
    assert second.json()["detail"].startswith("With your other files you would hold more")
    assert client.delete(f"/v1/files/{first.json()['id']}").status_code == 200
    larger, third = (client.post("/v1/files", **a_form(size)) for size in (500_000, 300_000))
    assert (larger.status_code, larger.json()["type"]) == (413, "body_too_large")
    assert larger.json()["limit_bytes"] <= share_bytes
    assert third.status_code == 200
    assert alice.post("/v1/files", **a_form(500_000)).status_code == 200


def test_one_key_that_floods_does_not_use_up_the_quota_of_another(made):
    flood = made.client("gina", requests_per_minute=1)
    calm = made.client("henry", requests_per_minute=3)
    statuses = [flood.post("/score", json={"text": "x"}).status_code for _ in range(20)]
    assert statuses == [202] + [429] * 19
    assert calm.post("/score", json={"text": "x"}).status_code == 202


def test_client_of_python_sends_its_key_and_waits_for_its_quota(made, web, monkeypatch):
    # So few that they are used up on a busy machine, too.
    token, key = new_key("ida", ["score"], requests_per_minute=6)
    made.store.add(key)
    monkeypatch.setenv("EVASCORE_URL", web.url)
    with evascore.Client() as nobody, pytest.raises(evascore.Unauthorized):
        nobody.submit("x")
    monkeypatch.setenv("EVASCORE_API_KEY", token)
    with evascore.Client() as client:
        wait_until(lambda: submitted(client) is not None)
        with pytest.raises(evascore.Forbidden):
            client.submit_batch(["x"])
        wait_until(lambda: client.submit("x").id and was_refused(web, "key:ida"))
    with pytest.raises(ValueError, match="ASCII"):
        evascore.Client(api_key="evs_0\n")


def was_refused(web: WebServer, client: str) -> bool:
    """Whether the quota of a client was used up once."""
    lines = web.log_lines("request_served")
    return (client, 429) in [(line["client"], line["status"]) for line in lines]


def submitted(client: evascore.Client) -> str | None:
    """Submit a text; the ID of its task, or None while the key is not known yet."""
    try:
        return client.submit("x").id
    except evascore.Unauthorized:
        return None


@pytest.mark.parametrize("content", [None, "{}", "no key"])
def test_keys_file_that_cannot_be_used_is_refused_at_the_start(web_redis, tmp_path, content):
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    server = WebServer(tmp_path, web_redis.url, auth="keys", keys_file=file)
    ended = subprocess.run(
        server.command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=HANG_S
    )
    assert ended.returncode != 0
    assert ended.stderr.startswith("evascore: EVASCORE_KEYS_FILE: ")
    assert ended.stderr.count("\n") == 1
    assert str(file) in ended.stderr


def test_make_smoke_shows_the_remedy_of_a_refusal(web):
    dry_run = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "smoke"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "localhost:8000" in dry_run.stdout
    command = dry_run.stdout.replace("localhost:8000", f"127.0.0.1:{web.port}")
    refused = subprocess.run(
        ["env", "--unset=EVASCORE_API_KEY", "sh", "-c", command], capture_output=True, text=True
    )
    assert refused.returncode == 22
    assert "Send an API key" in refused.stdout
