"""Redis that dies or freezes: quick, clear refusals, and nothing lost that was accepted."""

import time

from tests.faults.conftest import MARKER

TEXT = {"text": f"{MARKER} is a word."}
# Redis is given `redis_timeout_s` (2 s); the rest is for a busy machine.
REFUSAL_S = 30


def test_jobs_accepted_before_redis_was_killed_are_scored(service, client):
    service.part("worker").suspend()
    ids = [client.submit(TEXT) for _ in range(50)]
    service.part("redis").kill()
    service.part("worker").resume()
    assert {client.ended(task_id)["state"] for task_id in ids} == {"SUCCESS"}


def test_frozen_redis_is_503_in_seconds_and_scored_after(service, client):
    accepted = client.submit(TEXT)
    redis = service.part("redis")
    redis.suspend()
    requests = (
        lambda: client.http.post("/score", json=TEXT),
        lambda: client.http.get(f"/score/{accepted}"),
        lambda: client.http.post(f"/score/{accepted}/cancel"),
        lambda: client.http.get("/readyz"),
    )
    for request in requests:
        began = time.monotonic()
        answer = request()
        assert time.monotonic() - began < REFUSAL_S
        assert answer.status_code == 503
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert int(answer.headers["Retry-After"]) > 0
    assert client.http.get("/healthz").status_code == 200
    redis.resume()
    assert client.ended(accepted)["state"] == "SUCCESS"
    assert client.ended(client.submit(TEXT))["state"] == "SUCCESS"


def test_unfinished_rewrites_of_a_dead_redis_are_removed(service, client):
    """On a full disk each restart would leave one more, until nothing but an operator helps."""
    left = service.data_dir / "temp-rewriteaof-4711.aof"
    left.write_bytes(b"half a rewrite")
    accepted = client.submit(TEXT)
    service.part("redis").kill()
    assert client.ended(accepted)["state"] == "SUCCESS"
    assert not left.exists()
    assert (service.data_dir / "appendonlydir").is_dir()
