"""Audit: the logs tell who did what to which task or batch, and never a text."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import orjson
import pytest

from contract.api_keys import Scope, new_key
from contract.store.key_store import KeyStore
from tests.conftest import LIMITS, wait_until
from tests.service import Service
from tests.web import WebServer

MARKER = "rumpelstilzchen"
NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def web(web_redis, tmp_path_factory) -> Iterator[WebServer]:
    server = WebServer(
        tmp_path_factory.mktemp("web"), web_redis.url, auth="keys", max_queued_jobs=8
    ).start()
    yield server
    assert MARKER not in server.log.read_text()
    assert server.stop() == 0


@pytest.fixture(scope="module")
def store(outcomes) -> KeyStore:
    return KeyStore(outcomes.client)


@contextmanager
def client_with(
    web: WebServer, store: KeyStore, name: str, *scopes: Scope, **limits: int
) -> Iterator[httpx.Client]:
    """A client with a new key."""
    token, key = new_key(name, scopes or ("score", "bulk"), **limits)
    store.add(key)
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=web.url, headers=headers, timeout=30, limits=LIMITS) as client:
        wait_until(lambda: client.get("/score/x").status_code != 401)
        yield client


@pytest.fixture(scope="module")
def alice(web, store) -> Iterator[httpx.Client]:
    with client_with(web, store, "alice") as client:
        yield client


def line_of(web: WebServer, response: httpx.Response) -> dict[str, object]:
    """The one line of the log that is about this request."""
    request_id = response.headers["X-Request-Id"]
    (line,) = [x for x in web.log_lines("request_served") if x["request_id"] == request_id]
    return line


def test_submission_cancellation_and_erasure_of_a_task_are_logged(web, alice):
    headers = {"Idempotency-Key": "again"}
    body = {"text": MARKER}
    submitted, again = (alice.post("/score", json=body, headers=headers) for _ in range(2))
    task_id = submitted.json()["id"]
    cancelled = alice.post(f"/score/{task_id}/cancel")
    refused = alice.post(f"/score/{task_id}/cancel")
    erased = alice.delete(f"/score/{task_id}")
    gone = alice.get(f"/score/{task_id}")
    lines = [line_of(web, each) for each in (submitted, again, cancelled, refused, erased, gone)]
    assert {line["task_id"] for line in lines} == {task_id}
    assert {line["client"] for line in lines} == {"key:alice"}
    assert [line["outcome"] for line in lines] == [
        *("accepted", "replayed", "cancelled", "job_ended", "erased", "job_gone")
    ]
    assert lines[0]["work_bytes"] == len(MARKER)
    assert lines[0]["body_bytes"] == len(submitted.request.content)


def test_submission_cancellation_and_erasure_of_a_batch_are_logged(web, alice):
    lines = f'{{"text": "{MARKER}"}}\n'.encode()
    uploaded = alice.post("/batches", content=lines, headers=NDJSON)
    batch_id = uploaded.json()["id"]
    cancelled = alice.post(f"/batches/{batch_id}/cancel")
    erased = alice.delete(f"/batches/{batch_id}")
    logged = [line_of(web, each) for each in (uploaded, cancelled, erased)]
    assert {line["batch_id"] for line in logged} == {batch_id}
    assert {line["client"] for line in logged} == {"key:alice"}
    assert [line["outcome"] for line in logged] == ["accepted", "cancelled", "erased"]
    assert logged[0]["body_bytes"] == len(lines)
    assert logged[0]["work_bytes"] > 0


def test_refusals_are_logged_with_their_client_and_code(web, store, alice):
    with web.client() as nobody, client_with(web, store, "bob", requests_per_minute=1) as bob:
        unauthorized = nobody.post("/score", json={"text": MARKER})
        forbidden = bob.get("/stats")
        answers = [bob.post("/score", json={"text": MARKER}) for _ in range(2)]
        accepted = [alice.post("/score", json={"text": MARKER}) for _ in range(8)]
        full = [each for each in accepted if each.status_code == 503]
        for each in (answers[0], *accepted):
            client = bob if each is answers[0] else alice
            client.delete(each.headers.get("Location", "/score/x"))
    reply = [line_of(web, each) for each in (unauthorized, forbidden, answers[1], full[0])]
    assert [(line["status"], line["outcome"], line["client"]) for line in reply] == [
        (401, "unauthorized", "127.0.0.1"),
        (403, "forbidden", "key:bob"),
        (429, "quota_exceeded", "key:bob"),
        (503, "overloaded", "key:alice"),
    ]


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
def test_id_that_was_never_issued_is_not_logged(web, alice, method):
    response = alice.request(method, f"/score/{MARKER}")
    assert "task_id" not in line_of(web, response)


def test_web_server_logs_the_keys_that_come_and_go(web, store, alice):
    with client_with(web, store, "carol", "score"):
        (key,) = [each for each in store.all() if each.name == "carol"]
        store.revoke([key])
        wait_until(lambda: alice.get("/score/x") and is_logged(web, "key_removed", key.id))
    assert is_logged(web, "key_added", key.id)
    (line,) = [x for x in web.log_lines("key_removed") if x["key_id"] == key.id]
    assert (line["client"], line["scopes"]) == ("carol", ["score"])
    assert key.sha256 not in web.log.read_text()


def is_logged(web: WebServer, event: str, key_id: str) -> bool:
    """Whether the web server has logged this event of a key."""
    return key_id in [line["key_id"] for line in web.log_lines(event)]


def test_task_of_a_complaint_is_found_in_the_logs_of_both_tiers(scoring):
    with scoring.client() as client:
        answer = client.post("/score?wait=30", json={"text": MARKER})
        assert answer.json()["state"] == "SUCCESS"
        uploaded = client.post("/batches", content=b'{"text": "x"}\n', headers=NDJSON)
        path = uploaded.headers["Location"]
        wait_until(lambda: client.get(path).json()["status"] == "completed")
    task_id, batch_id = answer.json()["id"], uploaded.json()["id"]
    wait_until(lambda: events(scoring, f"{batch_id}.0"))
    # The web server may answer before the worker writes its line.
    ended = [("web", "request_served"), ("worker", "job_ended")]
    wait_until(lambda: sorted(events(scoring, task_id)[1:]) == ended)
    assert events(scoring, task_id)[0] == ("worker", "job_opened")
    about = [line for line in lines(scoring) if line.get("task_id") == task_id]
    assert {line["request_id"] for line in about} == {answer.headers["X-Request-Id"]}
    assert ("web", "request_served") in events(scoring, batch_id)
    assert events(scoring, f"{batch_id}.0")[0] == ("worker", "job_opened")
    assert MARKER not in scoring.log.read_text()


def lines(service: Service) -> list[dict[str, object]]:
    """The lines of JSON in the log of all processes."""
    # The last line may be half written.
    whole = service.log.read_bytes().rpartition(b"\n")[0]
    return [orjson.loads(line) for line in whole.splitlines() if line.startswith(b"{")]


def events(service: Service, the_id: str) -> list[tuple[object, object]]:
    """Process and event of each line with the ID of a task or a batch."""
    return [
        (line["process"], line["event"])
        for line in lines(service)
        if the_id in (line.get("task_id"), line.get("batch_id"))
    ]
