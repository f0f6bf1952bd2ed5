"""Batches while parts die: nothing lost, nothing twice, and no trace of what was not accepted."""

import threading

import httpx
import orjson
import psutil
import pytest
from redis import Redis

from app.responses.batch_models import BatchResult
from contract import keys
from tests.conftest import wait_until
from tests.faults.conftest import MARKER, RECOVERY_S
from tests.web import WebServer

NDJSON = {"Content-Type": "application/x-ndjson"}
NUM_LINES = 1000


def body(num_lines: int) -> bytes:
    return b"".join(
        orjson.dumps({"custom_id": str(n), "text": f"{MARKER} {n} " + "x" * (n % 7)}) + b"\n"
        for n in range(num_lines)
    )


BODY = body(NUM_LINES)


def upload(client, num_lines: int = NUM_LINES) -> str:
    response = client.http.post("/batches", content=body(num_lines), headers=NDJSON)
    assert response.status_code == 202, response.text
    return response.headers["Location"]


def state(client, path: str) -> dict:
    return client.until_served("GET", path)


def completed(client, path: str) -> int:
    return state(client, path)["request_counts"]["completed"]


def assert_complete(client, path: str, num_lines: int = NUM_LINES) -> None:
    """The batch ends, with one result for each line, in order, read page by page."""
    wait_until(lambda: state(client, f"{path}?wait=5")["status"] == "completed", RECOVERY_S)
    found = []
    while len(found) < num_lines:
        page = client.http.get(f"{path}/results", params={"after": len(found), "limit": 300})
        found += [orjson.loads(line) for line in page.text.splitlines()]
    for line in found:
        BatchResult.model_validate(line)
    assert [line["index"] for line in found] == list(range(num_lines))
    assert [line["custom_id"] for line in found] == [str(n) for n in range(num_lines)]
    assert {line["status"] for line in found} == {"SUCCESS"}
    assert client.http.delete(path).status_code == 204


def test_worker_killed_twice_during_a_batch(service, client):
    path = upload(client)
    for _ in range(2):
        seen = completed(client, path)
        # On a busy machine all may have ended before the second kill.
        wait_until(
            lambda seen=seen: completed(client, path) > seen or seen == NUM_LINES, RECOVERY_S
        )
        service.part("worker").kill()
    assert_complete(client, path)


@pytest.mark.parametrize("part", ["redis", "web"])
def test_batch_outlives_the_death_of_a_part(service, client, part):
    path = upload(client)
    wait_until(lambda: completed(client, path), RECOVERY_S)
    service.part(part).kill()
    assert_complete(client, path)


def test_interactive_text_waits_for_no_more_than_the_batch_in_flight(service, client):
    # 16 parts, of one micro-batch each.
    num_lines = 16 * 256
    path = upload(client, num_lines)
    wait_until(lambda: completed(client, path), RECOVERY_S)
    task_id = client.submit({"text": f"{MARKER} is a word."})
    before = service.num_micro_batches()
    job = client.ended(task_id)
    # The one in flight, one more that began before the job was fetched, and its own.
    assert service.num_micro_batches(before_end_of=task_id) - before <= 3
    assert job["result"]["batch"]["texts"] == 1
    assert_complete(client, path, num_lines)


@pytest.fixture
def web(redis_server, tmp_path):
    # What an upload leaves is deleted after twice the timeout.
    settings = {"web_timeout_s": 3, "max_wait_s": 3, "micro_batch_texts": 1}
    server = WebServer(tmp_path, redis_server.url, **settings).start()
    yield server
    server.stop()


def test_server_killed_in_mid_upload_leaves_nothing_behind(web, redis_server):
    with httpx.Client(base_url=web.url) as http:
        http.post("/score", json={"text": "x"})
    with Redis(port=redis_server.port) as redis:
        before = set(redis.keys())
        is_stored, is_killed = threading.Event(), threading.Event()

        def some_lines():
            # More than a piece of the body, so that the server has something to store.
            yield BODY * 3
            is_stored.set()
            is_killed.wait(30)

        sender = threading.Thread(target=send_in_vain, args=(web.url, some_lines()))
        sender.start()
        assert is_stored.wait(30)
        wait_until(lambda: len(redis.keys()) > len(before))
        for process in psutil.Process(web.process.pid).children():
            process.kill()
        is_killed.set()
        sender.join(30)
        wait_until(lambda: set(redis.keys()) <= before)
        assert redis.hlen(keys.LIVE_BATCHES) == 0


def test_full_redis_refuses_an_upload_and_keeps_nothing_of_it(web, redis_server):
    with Redis(port=redis_server.port) as redis, httpx.Client(base_url=web.url) as http:
        http.post("/score", json={"text": "x"})
        before = set(redis.keys())
        redis.config_set("maxmemory", redis.info("memory")["used_memory"] + 100_000)
        answers = [http.post("/batches", content=BODY * 3, headers=NDJSON) for _ in range(2)]
        redis.config_set("maxmemory", 0)
        for answer in answers:
            assert answer.status_code == 503, answer.text
            assert answer.json()["type"] in ("overloaded", "broker_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
        wait_until(lambda: set(redis.keys()) <= before)
        assert http.post("/batches", content=BODY, headers=NDJSON).status_code == 202


def test_batch_whose_results_could_never_lie_in_redis_is_refused(web, redis_server):
    line = {"text": "x" * 1000, "outputs": ["bytes", "top_k"], "top_k": 320}
    with Redis(port=redis_server.port) as redis, httpx.Client(base_url=web.url) as http:
        http.post("/score", json={"text": "x"})
        before = set(redis.keys())
        redis.config_set("maxmemory", 2 * redis.info("memory")["used_memory"])
        answer = http.post("/batches", content=b"\n".join([orjson.dumps(line)] * 5), headers=NDJSON)
        redis.config_set("maxmemory", 0)
        assert (answer.status_code, answer.json()["type"]) == (413, "body_too_large")
        assert answer.json()["limit_bytes"] < 10_000_000
        wait_until(lambda: set(redis.keys()) <= before)


def send_in_vain(url: str, lines) -> None:
    with httpx.Client(base_url=url) as http, pytest.raises(httpx.TransportError):
        http.post("/batches", content=lines, headers=NDJSON)
