"""Marker texts go through every route and failure; after EVASCORE_FORGET_S nothing has them.

Each way has two markers, one in the text and one in the `custom_id`. Files, log, keys of Redis, its
slow log, `/metrics` and `/stats` are searched.
"""

import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import redis
import zstandard

from contract import keys
from tests.conftest import wait_until
from tests.faults.test_dying_worker import is_aboard
from tests.patient_client import PatientClient
from tests.service import Service

FORGET_S = 4
RESULT_TTL_S = 10
# Deadlines nest: none may be longer than results are kept.
TIMES = {
    "forget_s": FORGET_S,
    "result_ttl_s": RESULT_TTL_S,
    "max_deadline_s": RESULT_TTL_S,
    "deadline_s": RESULT_TTL_S,
    "max_upload_deadline_s": RESULT_TTL_S,
    "micro_batch_timeout_s": RESULT_TTL_S,
    "completion_wait_s": RESULT_TTL_S,
    "web_timeout_s": 5,
    "max_wait_s": 5,
    "drain_s": 5,
    "lease_s": 3,
}
PLAIN = {"Content-Type": "text/plain"}
NDJSON = {"Content-Type": "application/x-ndjson"}


class Markers:
    """Makes words that occur nowhere else, and finds them again."""

    def __init__(self) -> None:
        self.made: list[bytes] = []

    def line(self, way: str, size: int = 0) -> dict[str, Any]:
        """A line with a marker in its text and one in its `custom_id`."""
        text, custom_id = f"Quokkatext-{way}", f"Quokkaid-{way}"
        self.made += [text.encode(), custom_id.encode()]
        return {"text": f"{text} {'x' * size}", "custom_id": custom_id}

    def items(self, way: str, size: int = 0) -> dict[str, Any]:
        """A request with such a line."""
        return {"items": [self.line(way, size)]}

    def found_in(self, content: bytes) -> set[bytes]:
        """The markers that `content` has, also within frames of zstd or as base64."""
        parts = [content, *map(unpacked, frames(content))]

        def has(marker: bytes) -> bool:
            # Completions store whole prompts so.
            return any(marker in part or b64encode(marker) in part for part in parts)

        return set(filter(has, self.made))


def frames(content: bytes) -> Iterator[bytes]:
    """What follows each place where a frame of zstd may begin."""
    at = content.find(zstandard.FRAME_HEADER)
    while at >= 0:
        yield content[at:]
        at = content.find(zstandard.FRAME_HEADER, at + 1)


def unpacked(frame: bytes) -> bytes:
    """The content of a frame of zstd, b"" if it is none."""
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(frame)
    except zstandard.ZstdError:
        return b""


@pytest.fixture
def service(tmp_path) -> Iterator[Service]:
    """A service that forgets soon and logs everything."""
    service = Service(
        tmp_path, log_level="DEBUG", max_crashes=1, max_body_bytes=200_000, **TIMES
    ).start()
    yield service
    service.stop()


@pytest.fixture
def client(service) -> Iterator[PatientClient]:
    with PatientClient(service.url) as client:
        yield client


def test_no_trace_is_left_of_a_text(service, client):
    markers = Markers()
    with service.redis() as server:
        # Compressed, a marker would not be recognized.
        server.config_set("rdbcompression", "no")
        server.acl_setuser("default", enabled=True, commands=["-bgrewriteaof"])
        score_and_refuse(client.http, markers)
        end_before_they_are_scored(service, client, markers)
        break_payload(service, client.http, server, markers)
        leave_to_expire(client.http, markers)
        fill_redis(client.http, server, markers)
        # While Redis is not allowed to rewrite its file, all are found there.
        stored = set(markers.made) - set(refused_at_once(markers))
        assert stored - found_in_files(service.data_dir, markers) == set()
        server.acl_setuser("default", enabled=True, commands=["+bgrewriteaof"])
        die_while_scoring(service, client, server, markers)

    def is_forgotten() -> bool:
        # Keys that expired are gone once Redis has looked at them.
        return not found_in_files(service.data_dir, markers)

    wait_until(is_forgotten, timeout_s=RESULT_TTL_S + 2 * FORGET_S + 20, every_s=0.2)
    assert found_elsewhere(service, client.http, markers) == {}


def score_and_refuse(http: httpx.Client, markers: Markers) -> None:
    """Score by each route; send what is refused."""
    for way in ("waited", "erased"):
        line = markers.items(way)
        job = http.post("/score?wait=5", json=line, headers={"Idempotency-Key": f"Quokkakey-{way}"})
        assert job.json().get("state") == "SUCCESS", job.text
        assert f"Quokkaid-{way}" in job.text
    assert http.delete(f"/score/{job.json()['id']}").status_code == 204
    markers.made += [b"Quokkakey-waited", b"Quokkatext-plain", b"Quokkatext-completion"]
    plain = http.post("/score?wait=5", content="Quokkatext-plain", headers=PLAIN)
    assert plain.json()["state"] == "SUCCESS"
    # Its events, too.
    assert http.get(f"/score/{plain.json()['id']}/events").status_code in (200, 204)
    prompt = {"model": "small", "prompt": "Quokkatext-completion", "max_tokens": 0}
    completion = http.post("/v1/completions", json={**prompt, "echo": True, "logprobs": 1})
    assert completion.status_code == 200
    lines = [markers.line(f"line{n}") for n in range(3)]
    batch = http.post("/batches", content=ndjson(*lines), headers=NDJSON).json()
    wait_until(lambda: http.get(f"/batches/{batch['id']}").json()["status"] == "completed")
    assert "Quokkaid-line2" in http.get(f"/batches/{batch['id']}/results").text
    assert http.delete(f"/batches/{batch['id']}").status_code == 204
    # Refused after its first lines were stored, and at once.
    good = [markers.line("refused0", 1000), *({"text": "y" * 1000} for _ in range(2000))]
    bad = http.post("/batches", content=ndjson(*good, {"text": 1}), headers=NDJSON)
    assert bad.status_code == 422
    unknown = {**markers.line("refused1"), "Quokkafield": 1}
    assert http.post("/score", json=unknown).status_code == 422
    assert http.post("/tokenize", json={"prompt": "Quokkatext-refused1"}).status_code == 200


def end_before_they_are_scored(service: Service, client: PatientClient, markers: Markers) -> None:
    """Cancel and erase jobs and batches that wait; let a deadline pass."""
    http = client.http
    worker = service.part("worker")
    worker.suspend()
    cancelled, erased = (client.submit(markers.items(way)) for way in ("cancelled", "unwanted"))
    expired = client.submit({**markers.items("late"), "deadline_s": 0.5})
    batches = [
        http.post("/batches", content=ndjson(markers.line(way)), headers=NDJSON).json()["id"]
        for way in ("batch0", "batch1")
    ]
    assert http.post(f"/score/{cancelled}/cancel").status_code == 200
    assert http.delete(f"/score/{erased}").status_code == 204
    assert http.post(f"/batches/{batches[0]}/cancel").status_code == 200
    assert http.delete(f"/batches/{batches[1]}").status_code == 204
    time.sleep(0.6)  # the time that the deadline is about
    worker.resume()
    assert client.ended(expired)["state"] == "REVOKED"


def die_while_scoring(
    service: Service, client: PatientClient, server: redis.Redis, markers: Markers
) -> None:
    """Kill the worker and Redis while a job is scored, which then fails as poison."""
    poison = client.submit(markers.items("poison", 3_500))
    wait_until(lambda: is_aboard(server, poison), every_s=0.002)
    service.part("worker").kill()
    service.part("redis").kill()
    # On a busy machine it may have expired by then.
    wait_until(lambda: has_ended(client.http.get(f"/score/{poison}")))
    server.connection_pool.disconnect()
    wait_until(lambda: answers(server))
    server.config_set("rdbcompression", "no")
    wait_until(lambda: client.http.get("/readyz").status_code == 200)


def has_ended(answer: httpx.Response) -> bool:
    return answer.status_code == 410 or answer.json().get("state") in ("FAILURE", "REVOKED")


def answers(server: redis.Redis) -> bool:
    try:
        return bool(server.ping())
    except redis.RedisError:
        return False


def break_payload(
    service: Service, http: httpx.Client, server: redis.Redis, markers: Markers
) -> None:
    """Break a payload, so that it becomes a dead letter."""
    worker = service.part("worker")
    worker.suspend()
    task_id = http.post("/score", json=markers.items("broken")).json()["id"]
    payload = server.get(keys.payload(task_id))
    server.set(keys.payload(task_id), payload[:-1], keepttl=True)
    worker.resume()
    wait_until(lambda: server.exists(keys.DEAD_LETTERS))


def leave_to_expire(http: httpx.Client, markers: Markers) -> None:
    """Score what nobody erases."""
    job = http.post("/score?wait=5", json=markers.items("kept")).json()
    assert job["state"] == "SUCCESS"


def fill_redis(http: httpx.Client, server: redis.Redis, markers: Markers) -> None:
    """Send a text to a Redis that is full."""
    maxmemory = server.config_get("maxmemory")["maxmemory"]
    server.config_set("maxmemory", "1mb")
    assert http.post("/score", json=markers.items("refused2")).status_code == 503
    server.config_set("maxmemory", maxmemory)


def ndjson(*lines: dict[str, Any]) -> bytes:
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


def refused_at_once(markers: Markers) -> list[bytes]:
    """The markers that were never stored."""
    never = (b"refused1", b"refused2", b"Quokkakey")
    return [marker for marker in markers.made if any(word in marker for word in never)]


def found_in_files(data_dir: Path, markers: Markers) -> set[bytes]:
    found: set[bytes] = set()
    for path in data_dir.rglob("*"):
        # A rewrite may delete a file meanwhile.
        if path.is_file():
            found |= contents(path.read_bytes, markers)
    return found


def contents(read: Callable[[], bytes], markers: Markers) -> set[bytes]:
    try:
        return markers.found_in(read())
    except FileNotFoundError:
        return set()


def found_elsewhere(
    service: Service, http: httpx.Client, markers: Markers
) -> dict[str, set[bytes]]:
    """The markers in each place other than files, if any."""
    with service.redis() as server:
        dumps = [name + (server.dump(name) or b"") for name in server.keys("*")]
        slow = server.slowlog_get()
    places = {
        "log": service.log.read_bytes(),
        "keys": b"\n".join(dumps),
        "slow log": repr(slow).encode(),
        "metrics": http.get("/metrics").content,
        "stats": http.get("/stats").content,
    }
    found = {place: markers.found_in(content) for place, content in places.items()}
    return {place: words for place, words in found.items() if words}
