"""What the service tells of itself: live, ready, its model and limits, its load."""

import subprocess
import time

import orjson
import pytest

from app.service.recent_workers import STATUS_MAX_AGE_S
from contract import __version__, keys
from contract.settings import REPOSITORY
from contract.worker_status import WorkerStatus
from tests.conftest import HANG_S
from tests.web import Outcomes, WebServer

STATUS = {
    "name": "w",
    "pid": 1,
    "started_at": 1_769_860_800.25,
    "state": "ready",
    "model": {"name": "demo"},
    "num_batches": 2,
    "num_texts": 7,
    "num_bytes": 1000,
    "bytes_per_s": 500.0,
}


def test_live_without_a_worker(http):
    response = http.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("state", "status"), [("starting", 503), ("draining", 503), ("ready", 200), ("busy", 200)]
)
def test_ready_when_a_worker_is_warm(http, outcomes, state, status):
    outcomes.pose_as_worker({**STATUS, "state": state})
    response = http.get("/readyz")
    assert response.status_code == status
    if status == 200:
        assert response.json() == {"status": "ok", "ready_workers": 1}
    if status == 503:
        assert response.json()["type"] == "worker_unavailable"


def test_not_ready_when_a_worker_stopped_for_its_models_drift(http, outcomes):
    outcomes.client.flushdb()
    outcomes.store.note_model_drifted("w")
    response = http.get("/readyz")
    assert (response.status_code, response.json()["type"]) == (503, "model_drifted")
    outcomes.pose_as_worker(STATUS)
    assert http.get("/readyz").status_code == 200
    outcomes.client.delete(keys.MODEL_DRIFTED)


@pytest.mark.parametrize(
    ("fields", "has_work", "status"),
    [
        ({"silent_s": 301.0}, True, 503),
        ({"silent_s": 301.0}, False, 200),
        ({"silent_s": 0.5}, True, 200),
        ({"silent_s": 0.5, "unstored_s": 31.0}, False, 503),
    ],
)
def test_not_ready_when_work_waits_and_no_worker_gets_on(http, outcomes, fields, has_work, status):
    outcomes.client.flushdb()
    if has_work:
        http.post("/score", json={"text": "waits"})
    outcomes.pose_as_worker({**STATUS, **fields})
    response = http.get("/readyz")
    assert response.status_code == status
    if status == 503:
        assert response.json()["type"] == "stalled"
        assert response.json()["retryable"] is True


def test_info_tells_the_model_the_limits_and_the_outputs(http, outcomes, web):
    outcomes.client.flushdb()
    body = http.get("/info").json()
    assert body["model"] is None
    assert body["limits"]["max_text_bytes"] == web.settings.max_text_bytes
    assert body["outputs"] == ["summary", "bytes", "top_k", "curvature"]
    assert body["service"] == {"name": "evascore", "version": __version__}
    outcomes.pose_as_worker(STATUS)
    assert http.get("/info").json()["model"] == {"name": "demo"}


def test_smallest_loaded_model_limits_texts(web_redis, tmp_path):
    server = WebServer(tmp_path, f"{web_redis.url[:-1]}1").start()
    outcomes = Outcomes(server)
    for name, limit in (("small", 50), ("large", 90)):
        outcomes.pose_as_worker({"name": name, "model": {"name": name, "max_text_bytes": limit}})

    def limit_of(client):
        return client.get("/info").json()["limits"]["max_text_bytes"]

    with server.client() as client:
        assert limit_of(client) == 50
        assert client.post("/score", json={"text": "x" * 50}).status_code == 202
        refusal = client.post("/score", json={"text": "x" * 51})
        assert (refusal.status_code, refusal.json()["limit_bytes"]) == (413, 50)
        window = {"text": "x" * 99, "window": {"size": 51, "stride": 16}}
        assert client.post("/score", json=window).status_code == 422
        prompt = {"model": "small", "prompt": "x" * 51, "max_tokens": 0, "echo": True}
        assert client.post("/v1/completions", json=prompt).status_code == 413
        lines = {"content": orjson.dumps({"text": "x" * 51})}
        ndjson = {"Content-Type": "application/x-ndjson"}
        upload = client.post("/batches?on_error=fail", headers=ndjson, **lines)
        (error,) = upload.json()["errors"]
        assert error == {"detail": "is too large", "pointer": "/text", "line": 1}
        # A worker that restarts says nothing for a while: its limit stays.
        outcomes.client.delete(keys.lease("small"), keys.lease("large"))
        time.sleep(STATUS_MAX_AGE_S)
        assert limit_of(client) == 50
        outcomes.pose_as_worker({"name": "large", "model": {"name": "m", "max_text_bytes": 90}})
        time.sleep(STATUS_MAX_AGE_S)
        assert limit_of(client) == 90
    outcomes.client.close()
    assert server.stop() == 0


def test_stats_tell_what_waits_and_who_works(http, outcomes):
    outcomes.client.flushdb()
    outcomes.pose_as_worker(STATUS)
    ids = [http.post("/score", json={"text": text}).json()["id"] for text in ("a", "bc", "def")]
    outcomes.succeed(ids[0], {})
    body = http.get("/stats").json()
    assert (body["queue"]["jobs"], body["queue"]["bytes"]) == (2, 5)
    reply = orjson.loads(orjson.dumps(WorkerStatus(**STATUS).as_json()))
    assert body["workers"] == [{**reply, "started_at": "2026-01-31T12:00:00.250Z"}]
    assert body["totals"] == {"jobs_succeeded": 1}


def test_stats_tell_why_and_when_something_was_set_aside(http, outcomes):
    outcomes.client.flushdb()
    assert http.get("/stats").json()["dead_letters"] == {"count": 0, "latest": []}
    for n in range(12):
        outcomes.store.set_aside("payload", f"reason_{n}", task_id="secret", num_bytes=n, raw=b"x")
    reply = http.get("/stats")
    assert "secret" not in reply.text
    letters = reply.json()["dead_letters"]
    assert letters["count"] == 12
    assert [letter["reason"] for letter in letters["latest"]] == [
        f"reason_{n}" for n in range(11, 1, -1)
    ]
    latest = letters["latest"][0]
    assert (latest["kind"], latest["at"][-1]) == ("payload", "Z")
    assert reply.json()["queue"]["parked"] == 0


def test_job_whose_record_cannot_be_read_is_a_503(http, outcomes):
    task_id = http.post("/score", json={"text": "a"}).json()["id"]
    outcomes.client.set(keys.record(task_id), b"garbage")
    answer = http.get(f"/score/{task_id}")
    assert (answer.status_code, answer.json()["type"]) == (503, "job_unreadable")


def test_wrong_setting_ends_the_server_with_one_clear_line(tmp_path):
    server = WebServer(tmp_path, "redis://127.0.0.1:1/0")
    command = [*server.command[:-3], "EVASCORE_PROT=1", *server.command[-3:]]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=HANG_S)
    assert run.returncode != 0
    assert run.stdout == ""
    assert run.stderr.splitlines() == [
        "evascore: EVASCORE_PROT is not a setting; did you mean EVASCORE_PORT?"
    ]
