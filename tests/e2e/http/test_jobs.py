"""The life of a job as an HTTP client sees it: submit, read, wait, cancel, erase."""

import hashlib
import threading
import time

import httpx
import pytest

from contract import keys
from contract.errors import ScoringFailed
from contract.messages import decode_payload
from tests.conftest import wait_until
from tests.web import Outcomes, WebServer

RESULT = {"num_bytes": 5, "bits_per_byte": 2.5}


def submitted(http, fields=None, **options):
    response = http.post("/score", json=fields or {"text": "hello"}, **options)
    assert response.status_code == 202, response.text
    return response


def after(seconds: float, action, *args) -> threading.Thread:
    thread = threading.Timer(seconds, action, args)
    thread.start()
    return thread


def test_submitted_text_gets_an_id_and_stays_queued(http):
    response = submitted(http)
    body = response.json()
    assert response.headers["Location"] == f"/score/{body['id']}" == body["links"]["self"]
    assert 1 <= int(response.headers["Retry-After"]) <= 30
    assert (body["state"], body["num_texts"], body["num_bytes"]) == ("QUEUED", 1, 5)
    assert body["finished_at"] is None
    assert "result" not in body
    assert http.get(response.headers["Location"]).json() == body


@pytest.mark.parametrize(
    ("content_type", "body", "request_of_worker"),
    [
        ("text/plain", "naïve\n".encode(), {"text": "naïve\n"}),
        ("application/octet-stream", b"\xff\0", {"text_b64": "/wA="}),
        ("application/json", b'{"text": "\\u0000"}', {"text": "\0"}),
    ],
)
def test_worker_gets_the_text_that_was_posted(
    http, outcomes, content_type, body, request_of_worker
):
    task_id = http.post("/score", content=body, headers={"Content-Type": content_type}).json()["id"]
    payload = outcomes.client.get(keys.payload(task_id))
    assert decode_payload(payload).requests == [request_of_worker]


def test_scored_job_shows_its_result(http, outcomes):
    task_id = submitted(http).json()["id"]
    outcomes.succeed(task_id, RESULT)
    response = http.get(f"/score/{task_id}")
    body = response.json()
    assert (response.status_code, body["state"], body["result"]) == (200, "SUCCESS", RESULT)
    assert body["finished_at"] >= body["submitted_at"]
    assert body["links"] == {"self": f"/score/{task_id}", "events": f"/score/{task_id}/events"}
    assert response.headers["Cache-Control"] == "no-store"
    assert "Retry-After" not in response.headers


def test_failed_job_is_read_with_200_and_its_problem(http, outcomes):
    task_id = submitted(http).json()["id"]
    outcomes.fail(task_id, ScoringFailed("too odd"))
    response = http.get(f"/score/{task_id}")
    assert response.status_code == 200
    assert response.json()["state"] == "FAILURE"
    assert response.json()["error"] == {
        "type": "scoring_failed",
        "title": "Scoring failed",
        "status": 500,
        "detail": "too odd",
        "retryable": False,
    }


def test_each_of_several_items_shows_its_result_or_problem(http, outcomes):
    fields = {"items": [{"text": "a", "custom_id": "1"}, {"text": "b"}]}
    task_id = submitted(http, fields).json()["id"]
    failed = {"code": "out_of_memory", "message": "too big", "retryable": True}
    outcomes.succeed(task_id, {"items": [{"custom_id": "1", "result": RESULT}, {"error": failed}]})
    first, second = http.get(f"/score/{task_id}").json()["result"]["items"]
    assert first == {"custom_id": "1", "result": RESULT}
    assert second["error"]["type"] == "out_of_memory"


@pytest.mark.parametrize("how", ["parameter", "preference"])
def test_waiting_post_answers_with_the_result_when_the_job_ends(http, outcomes, how):
    def end_the_newest() -> None:
        (task_id,) = wait_until(lambda: outcomes.client.hkeys(keys.LIVE_JOBS))
        outcomes.succeed(task_id.decode(), RESULT)

    for task_id in outcomes.client.hkeys(keys.LIVE_JOBS):
        outcomes.store.cancel(task_id.decode())
    ending = after(0.1, end_the_newest)
    options = {
        "parameter": {"params": {"wait": "20"}},
        "preference": {"headers": {"Prefer": 'respond-async, wait="20"'}},
    }[how]
    began_at = time.monotonic()
    response = http.post("/score", json={"text": "hello"}, **options)
    ending.join()
    # Long before the 20 s that it asked for, on a busy machine too.
    assert time.monotonic() - began_at < 15
    assert response.status_code == 200
    assert response.json()["result"] == RESULT
    assert response.headers["Location"] == f"/score/{response.json()['id']}"
    assert response.headers.get("Preference-Applied") == {"preference": "wait=20"}.get(how)


def test_waiting_ends_with_the_present_state_when_the_time_is_up(http):
    began_at = time.monotonic()
    response = submitted(http, params={"wait": "0.3"})
    # Long before the 30 s that a request may wait, on a busy machine too.
    assert 0.3 <= time.monotonic() - began_at < 15
    assert response.json()["state"] == "QUEUED"


def test_all_who_wait_for_one_job_get_its_end(http, web, outcomes):
    task_id = submitted(http).json()["id"]
    answers = []

    def wait() -> None:
        with web.client() as client:
            answers.append(client.get(f"/score/{task_id}", params={"wait": "20"}).json()["state"])

    threads = [threading.Thread(target=wait) for _ in range(10)]
    for thread in threads:
        thread.start()
    after(0.3, outcomes.succeed, task_id, RESULT)
    for thread in threads:
        thread.join()
    assert answers == ["SUCCESS"] * 10


def test_job_erased_while_one_waits_is_gone(http, outcomes):
    task_id = submitted(http).json()["id"]
    after(0.2, outcomes.store.erase, task_id)
    assert http.get(f"/score/{task_id}", params={"wait": "20"}).status_code == 410


@pytest.mark.parametrize(
    "preference", ["wait=x", "wait=-1", "wait", "return=x; wait=20", 'foo="wait=20"', ";;,,"]
)
def test_preference_that_is_not_understood_is_ignored(http, preference):
    began_at = time.monotonic()
    response = submitted(http, headers={"Prefer": preference})
    assert time.monotonic() - began_at < 15
    assert "Preference-Applied" not in response.headers


@pytest.mark.parametrize("wait", ["", "x", "-1", "nan", "inf", "1e999"])
def test_wait_that_is_no_time_is_refused(http, wait):
    response = http.get(f"/score/{'a' * 32}", params={"wait": wait})
    assert response.status_code == 422
    assert response.json()["errors"][0]["parameter"] == "wait"


def test_cancelled_job_is_revoked_and_cannot_be_cancelled_again(http):
    links = submitted(http).json()["links"]
    response = http.post(links["cancel"])
    assert response.status_code == 200
    assert response.json()["state"] == "REVOKED"
    assert response.json()["error"]["type"] == "job_cancelled"
    again = http.post(links["cancel"])
    assert (again.status_code, again.json()["type"]) == (409, "job_ended")


def test_erased_job_is_gone_and_may_be_erased_again(http, outcomes):
    task_id = submitted(http).json()["id"]
    for _ in range(2):
        response = http.delete(f"/score/{task_id}")
        assert (response.status_code, response.content) == (204, b"")
    response = http.get(f"/score/{task_id}")
    assert (response.status_code, response.json()["type"]) == (410, "job_gone")
    assert http.post(f"/score/{task_id}/cancel").status_code == 410


@pytest.mark.parametrize("task_id", ["x", "a" * 32, "%00", "%F0%9F%98%80", "a" * 3000])
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_id_that_was_never_given_out_is_not_found(http, task_id, method):
    path = f"/score/{task_id}/cancel" if method == "POST" else f"/score/{task_id}"
    response = http.request(method, path)
    assert (response.status_code, response.json()["type"]) == (404, "job_not_found")


def test_same_idempotency_key_and_request_are_one_job(http, outcomes):
    headers = {"Idempotency-Key": "order-17"}
    first = submitted(http, headers=headers)
    jobs = outcomes.store.depth().jobs
    again = submitted(http, headers=headers)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert outcomes.store.depth().jobs == jobs
    outcomes.succeed(first.json()["id"], RESULT)
    ended = http.post("/score", json={"text": "hello"}, headers=headers)
    assert (ended.status_code, ended.json()["result"]) == (200, RESULT)


def test_retry_of_an_erased_request_is_not_scored_again(http, outcomes):
    headers = {"Idempotency-Key": "order-19"}
    task_id = submitted(http, headers=headers).json()["id"]
    http.delete(f"/score/{task_id}")
    jobs = outcomes.store.depth().jobs
    for _ in range(2):
        retried = http.post("/score", json={"text": "hello"}, headers=headers)
        assert (retried.status_code, retried.json()["type"]) == (410, "job_gone")
        assert "with a new key" in retried.json()["detail"]
    assert outcomes.store.depth().jobs == jobs
    assert submitted(http, headers={"Idempotency-Key": "order-19b"}).json()["id"] != task_id


def test_key_of_an_erased_request_is_free_again_after_its_time(http, outcomes):
    headers = {"Idempotency-Key": "order-20"}
    task_id = submitted(http, headers=headers).json()["id"]
    http.delete(f"/score/{task_id}")
    name = keys.idempotency(hashlib.sha256(b"order-20").hexdigest())
    outcomes.client.expire(name, 1000)
    http.post("/score", json={"text": "hello"}, headers=headers)
    assert 0 < outcomes.client.ttl(name) <= 1000  # a retry does not prolong it
    outcomes.client.expire(name, 0)
    assert submitted(http, headers=headers).json()["id"] != task_id


def test_same_idempotency_key_with_another_request_is_refused(http):
    headers = {"Idempotency-Key": "order-18"}
    submitted(http, headers=headers)
    other = http.post("/score", json={"text": "other"}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, "ä".encode()])
def test_malformed_idempotency_key_is_refused(http, key):
    response = http.post("/score", json={"text": "x"}, headers={"Idempotency-Key": key})
    assert response.status_code == 422
    assert response.json()["errors"][0]["header"] == "Idempotency-Key"


def test_waiters_beyond_the_share_of_a_client_are_answered_at_once(web_redis, tmp_path):
    server = WebServer(tmp_path, web_redis.url, web_connections=16).start()
    try:
        with server.client() as http:
            path = submitted(http).headers["Location"]
            others = [
                threading.Thread(
                    target=httpx.get, args=[f"{server.url}{path}?wait=30"], kwargs={"timeout": 60}
                )
                for _ in range(server.settings.max_waiters // 2)
            ]
            for other in others:
                other.start()
            wait_until(lambda: server.num_open("wait") == len(others))
            began_at = time.monotonic()
            assert http.get(path, params={"wait": "20"}).json()["state"] == "QUEUED"
            assert time.monotonic() - began_at < 10
            # It ends the waits of the others.
            http.post(f"{path}/cancel")
            for other in others:
                other.join()
    finally:
        server.stop()


def test_full_queue_refuses_with_its_depth_and_when_to_come_again(web_redis, tmp_path):
    limits = {"max_text_bytes": 100, "max_job_bytes": 100, "max_queued_bytes": 100}
    server = WebServer(tmp_path, f"{web_redis.url[:-1]}1", **limits).start()
    outcomes = Outcomes(server)
    outcomes.pose_as_worker({"name": "w", "bytes_per_s": 10.0})
    outcomes.client.close()
    try:
        with server.client() as http:
            submitted(http, {"text": "x" * 60})
            response = http.post("/score", json={"text": "x" * 60})
            assert response.status_code == 503
            body = response.json()
            assert (body["type"], body["retryable"]) == ("overloaded", True)
            assert (body["queued_bytes"], body["max_queued_bytes"]) == (60, 100)
            assert response.headers["Retry-After"] == "6"
    finally:
        server.stop()


def test_stopping_server_sends_its_waiters_off_with_what_is_known(web_redis, tmp_path):
    server = WebServer(tmp_path, web_redis.url).start()
    with server.client() as http:
        path = submitted(http).headers["Location"]
        answers = []
        waiting = threading.Thread(
            target=lambda: answers.append(http.get(path, params={"wait": "20"}))
        )
        waiting.start()
        wait_until(lambda: server.num_open("wait") == 1)
        began_at = time.monotonic()
        assert server.stop() == 0
        waiting.join()
    # Long before the 20 s that it asked for, on a busy machine too.
    assert time.monotonic() - began_at < 15
    assert answers[0].json()["state"] == "QUEUED"
