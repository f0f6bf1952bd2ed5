"""Jobs that nobody wants any more are never scored, and a full queue refuses more of them."""

import time

import pytest

from contract import keys
from contract.errors import JobCancelled, JobExpired, Overloaded
from tests.faults.conftest import MARKER, contains_marker
from tests.patient_client import PatientClient

TEXT = {"text": f"{MARKER} is a word."}


def test_cancelled_erased_and_expired_jobs_are_not_scored(service, client):
    worker = service.part("worker")
    worker.suspend()
    before = num_succeeded(service)
    cancelled = client.submit(TEXT)
    erased = client.submit(TEXT)
    expired = client.submit({**TEXT, "deadline_s": 1})
    wanted = client.submit(TEXT)
    assert client.http.post(f"/score/{cancelled}/cancel").json()["state"] == "REVOKED"
    assert client.http.delete(f"/score/{erased}").status_code == 204
    time.sleep(1.1)  # the time that the deadline is about
    worker.resume()
    assert client.ended(wanted)["state"] == "SUCCESS"
    for task_id, error in ((cancelled, JobCancelled), (expired, JobExpired)):
        job = client.ended(task_id)
        assert (job["state"], job["error"]["type"]) == ("REVOKED", error.code)
    assert client.http.get(f"/score/{erased}").status_code == 410
    assert num_succeeded(service) == before + 1


def num_succeeded(service):
    """The jobs that ended well, as Redis counts them."""
    with service.redis() as redis:
        return int(redis.hget(keys.TOTALS, "jobs_succeeded") or 0)


def test_full_queue_refuses_and_takes_again_when_there_is_room(start_service):
    # One client fills its share: as many as are free.
    service = start_service(max_queued_jobs=5)
    worker = service.part("worker")
    worker.suspend()
    with PatientClient(service.url) as client:
        ids = [client.submit(TEXT) for _ in range(3)]
        refusal = client.http.post("/score", json=TEXT)
        assert refusal.status_code == 503
        assert refusal.json()["type"] == Overloaded.code
        assert int(refusal.headers["Retry-After"]) > 0
        worker.resume()
        assert {client.ended(task_id)["state"] for task_id in ids} == {"SUCCESS"}
        assert client.ended(client.submit(TEXT))["state"] == "SUCCESS"


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "' + MARKER.encode() + b'"',
        b'{"text": "' + MARKER.encode() + b'\\ud800"}',
        b'{"text": "a", "' + MARKER.encode() + b'": 1}',
        b'{"text": ["' + MARKER.encode() + b'"]}',
        MARKER.encode("utf-16"),
    ],
    ids=["cut", "surrogate", "unknown field", "wrong type", "not UTF-8"],
)
def test_refused_text_is_neither_answered_nor_logged(service, body):
    with service.client() as client:
        answer = client.post("/score", content=body, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert not contains_marker(answer.text)
    assert not contains_marker(service.log.read_text())
