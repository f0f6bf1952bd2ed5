"""Requests with huge results, more than Redis has room for: other people's texts are scored."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from contract import keys
from tests.conftest import wait_until
from tests.faults.conftest import MARKER, end
from tests.service import Service
from tests.web import WebServer

# About 2,700 bytes of result for each byte of text, once it is compressed.
HUGE = {"text": f"{MARKER} " * 110, "outputs": ["bytes", "top_k"], "top_k": 320}
SMALL = {"text": f"{MARKER} is a word."}
MAX_REDIS_BYTES = 40_000_000


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A service whose Redis has room for few huge results, and which knows clients by a header."""
    settings = {"max_redis_bytes": MAX_REDIS_BYTES, "trusted_proxies": "127.0.0.1"}
    service = Service(tmp_path_factory.mktemp("crowded"), **settings).start()
    yield service
    end(service)


@pytest.fixture
def http(crowded):
    """A client of `crowded`; what it has sent is deleted at the end."""
    sent = []

    def note(response):
        if response.request.method == "POST" and "Location" in response.headers:
            sent.append(response.headers["Location"])

    with crowded.client() as client, crowded.redis() as redis:
        client.event_hooks["response"].append(note)
        room = redis.config_get("maxmemory")["maxmemory"]
        yield client
        crowded.part("worker").resume()
        redis.config_set("maxmemory", room)
        for path in sent:
            assert client.delete(path).status_code in (204, 410)


def post(http: httpx.Client, body: dict, client: int) -> httpx.Response:
    headers = {"X-Forwarded-For": f"192.0.2.{client}"}
    return http.post("/score", json=body, headers=headers)


def state(http: httpx.Client, task_id: str) -> str:
    return http.get(f"/score/{task_id}").json()["state"]


def test_huge_results_that_have_no_room_are_refused_and_others_are_scored(crowded, http):
    with crowded.redis() as redis, ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(post, http, HUGE, number) for number in range(20)]
        for _ in range(5):
            answer = post(http, SMALL, 100)
            assert answer.status_code == 202, answer.text
            small = answer.json()["id"]
            wait_until(lambda: state(http, small) == "SUCCESS")  # noqa: B023 - called at once
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
        wait_until(lambda: post(http, HUGE, 1).status_code == 202)


def test_what_could_never_fit_is_too_large(redis_server, tmp_path):
    limit_bytes = MAX_REDIS_BYTES // 2
    web = WebServer(tmp_path, redis_server.url, max_redis_bytes=limit_bytes).start()
    try:
        with web.client() as client:
            answer = post(client, {"items": [HUGE] * 2}, 1)
    finally:
        assert web.stop() == 0
    assert (answer.status_code, answer.json()["type"]) == (413, "body_too_large")
    assert answer.json()["limit_bytes"] < limit_bytes


def test_redis_at_its_limit_gets_the_results_of_all_who_were_accepted(crowded, http):
    with crowded.redis() as redis:
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
        wait_until(lambda: post(http, SMALL, 50).status_code == 202)
        assert "Connection" not in crowded.log.read_text()
