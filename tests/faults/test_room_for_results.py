"""Requests with huge results, more than Redis has room for: other people's texts are scored."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from contract import keys
from tests.conftest import wait_until
from tests.faults.conftest import MARKER

# About 2,700 bytes of result for each byte of text, once it is compressed.
HUGE = {"text": f"{MARKER} " * 110, "outputs": ["bytes", "top_k"], "top_k": 320}
SMALL = {"text": f"{MARKER} is a word."}
MAX_REDIS_BYTES = 40_000_000
# From the POST to the answer, on a machine that scores huge requests besides.
PATIENCE_S = 30


@pytest.fixture
def crowded(start_service):
    """A service whose Redis has room for few huge results, and which knows clients by a header."""
    return start_service(max_redis_bytes=MAX_REDIS_BYTES, trusted_proxies="127.0.0.1")


def post(http: httpx.Client, body: dict, client: int, **query) -> httpx.Response:
    headers = {"X-Forwarded-For": f"192.0.2.{client}"}
    return http.post("/score", json=body, headers=headers, params=query)


def state(http: httpx.Client, task_id: str) -> str:
    return http.get(f"/score/{task_id}").json()["state"]


def test_huge_results_that_have_no_room_are_refused_and_others_are_scored(crowded):
    with crowded.client() as http, crowded.redis() as redis, ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(post, http, HUGE, number) for number in range(20)]
        for _ in range(5):
            began = time.monotonic()
            answer = post(http, SMALL, 100, wait=PATIENCE_S)
            assert answer.status_code == 200, answer.text
            assert answer.json()["state"] == "SUCCESS"
            assert time.monotonic() - began < PATIENCE_S
        answers = [each.result() for each in sent]
        accepted = [each.json()["id"] for each in answers if each.status_code == 202]
        refused = [each for each in answers if each.status_code != 202]
        assert len(accepted) >= 2
        assert len(refused) >= 5
        for answer in refused:
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.json()["type"] == "overloaded"
            assert answer.json()["needed_bytes"] > 5_000_000
            assert "fewer outputs" in answer.json()["detail"]
        wait_until(lambda: all(state(http, task_id) == "SUCCESS" for task_id in accepted))
        memory = redis.info("memory")
        assert memory["maxmemory"] * 0.9 >= MAX_REDIS_BYTES - 10
        assert memory["used_memory"] < memory["maxmemory"]
        assert int(redis.get(keys.LIVE_PROMISED)) == 0
        assert http.get("/readyz").status_code == 200
        # What is deleted makes room again.
        for task_id in accepted:
            http.delete(f"/score/{task_id}")
        wait_until(lambda: post(http, HUGE, 1).status_code == 202, timeout_s=10)


def test_what_could_never_fit_is_too_large(start_service):
    with start_service(max_redis_bytes=MAX_REDIS_BYTES // 2).client() as http:
        answer = post(http, {"items": [HUGE] * 2}, 1)
    assert (answer.status_code, answer.json()["type"]) == (413, "body_too_large")
    assert answer.json()["limit_bytes"] < MAX_REDIS_BYTES // 2


def test_redis_at_its_limit_gets_the_results_of_all_who_were_accepted(crowded):
    with crowded.client() as http, crowded.redis() as redis:
        worker = crowded.part("worker")
        worker.suspend()
        huge = post(http, HUGE, 1).json()["id"]
        small = [post(http, SMALL, number).json()["id"] for number in range(10, 20)]
        redis.config_set("maxmemory", redis.info("memory")["used_memory"])
        worker.resume()
        for task_id in (huge, *small):
            wait_until(lambda: state(http, task_id) == "SUCCESS")  # noqa: B023 - called at once
        assert http.get(f"/score/{huge}").json()["result"]["num_bytes"] > 1000
        refused = post(http, SMALL, 50)
        assert refused.status_code == 503
        assert http.get("/readyz").status_code == 200
        redis.config_set("maxmemory", 0)
        # Each web process looks at the memory of Redis once a second.
        wait_until(lambda: post(http, SMALL, 50).status_code == 202, timeout_s=10)
        assert "Connection" not in crowded.log.read_text()
