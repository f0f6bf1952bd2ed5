"""A web server or a worker whose clock is wrong by an hour: deadlines are those of Redis."""

import time
from datetime import UTC, datetime

import pytest

from contract.api_keys import new_key
from contract.settings import REPOSITORY
from contract.store.key_store import KeyStore
from tests.web import WebServer
from tests.worker_process import final, submit

SHIFTING = REPOSITORY / "tests" / "faults" / "chaos" / "clock"
HOUR_S = 3600
# For the start of a server or a worker on a busy machine; well below the hour.
SLACK_S = 1200


@pytest.fixture
def variables(tmp_path):
    """Makes the environment of a process whose clock is wrong by so many seconds."""

    def make(seconds: float) -> dict[str, str]:
        shift = tmp_path / "shift"
        shift.write_text(str(seconds))
        return {"PYTHONPATH": str(SHIFTING), "CHAOS_CLOCK": str(shift)}

    return make


def age_s(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def test_worker_that_is_ahead_expires_no_job(job_store, new_worker, variables):
    worker = new_worker()
    worker.environment |= variables(HOUR_S)
    task_id = submit(job_store, 10, deadline_s=HOUR_S / 2)
    worker.start_cold().wait_ready()
    (status,) = job_store.worker_statuses()
    assert abs(time.time() - status.started_at) < SLACK_S
    record = final(job_store, task_id)
    assert record.state == "SUCCESS"
    assert abs(time.time() - record.finished_at) < SLACK_S
    assert 0 <= record.result["timings_ms"]["queue"] < SLACK_S * 1000
    # Once, however often it is compared.
    assert worker.log.read_text().count('"clocks_differ"') == 1


def test_worker_that_is_behind_scores_no_job_after_its_deadline(job_store, new_worker, variables):
    worker = new_worker()
    worker.environment |= variables(-HOUR_S)
    task_id = submit(job_store, 10, deadline_s=0.5)
    time.sleep(0.6)
    worker.start_cold().wait_ready()
    assert final(job_store, task_id).error["code"] == "job_expired"


@pytest.mark.parametrize("seconds", [-HOUR_S, HOUR_S])
def test_deadlines_do_not_depend_on_the_clock_of_the_web_server(
    tmp_path, redis_server, variables, seconds
):
    server = WebServer(tmp_path, redis_server.url)
    server.command[1:1] = [f"{name}={value}" for name, value in variables(seconds).items()]
    server.start()
    try:
        with server.client() as client:
            job = client.post("/score", json={"text": "a", "deadline_s": SLACK_S}).json()
            found = client.get(f"/score/{job['id']}").json()
    finally:
        server.stop()
    assert abs(age_s(found["submitted_at"])) < SLACK_S
    assert 0 < -age_s(found["deadline_at"]) <= SLACK_S


def test_keys_expire_by_the_clock_of_redis(tmp_path, redis_server, redis_client, variables):
    store, tokens = KeyStore(redis_client), {}
    for name, left_s in (("valid", HOUR_S / 2), ("expired", -1)):
        tokens[name], key = new_key(name, ["score"], expires_at=time.time() + left_s)
        store.add(key)
    server = WebServer(tmp_path, redis_server.url, auth="keys")
    server.command[1:1] = [f"{name}={value}" for name, value in variables(HOUR_S).items()]
    server.start()
    try:
        with server.client() as client:
            answers = {
                name: client.get("/score/x", headers={"Authorization": f"Bearer {token}"})
                for name, token in tokens.items()
            }
    finally:
        server.stop()
    assert {name: each.status_code for name, each in answers.items()} == {
        "valid": 404,
        "expired": 401,
    }
