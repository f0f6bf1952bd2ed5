"""Large results over HTTP: compressed as the client accepts, and never whole in memory."""

import random
import socket
import time

import httpx
import orjson
import psutil
import pytest
import zstandard

from contract import keys
from contract.batches import part_id, part_results
from contract.errors import ScoringFailed
from contract.messages import success_record
from contract.store.jobs.endings import Ending
from tests.conftest import wait_until

NUM_CLIENTS = 12
# Measured: 3 to 5 MB, for the state of zstd in both directions and buffers.
MAX_GROWTH_PER_CLIENT = 8 * 1024**2


def a_large_result(num_bytes: int) -> dict:
    """A result of about this size with numbers that compress about as well as scores do."""
    rng = random.Random(7)
    # Longer than what zstd looks back.
    rows = 10 if num_bytes < 1_000_000 else 600
    block = [[[n, round(-rng.expovariate(0.3), 6)] for n in range(320)] for _ in range(rows)]
    size = len(str(block).replace(" ", ""))
    return {"num_bytes": 5, "top_k": block * max(1, num_bytes // size), "model": {"name": "m"}}


@pytest.fixture(scope="module")
def large(http, outcomes) -> tuple[str, dict]:
    """A scored job with a result of 50 MB."""
    task_id = http.post("/score", json={"text": "hello"}).json()["id"]
    result = a_large_result(50_000_000)
    outcomes.succeed(task_id, result)
    return task_id, result


@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd"])
def test_result_comes_in_the_encoding_that_the_client_accepts(http, large, encoding):
    task_id, result = large
    response = http.get(f"/score/{task_id}", headers={"Accept-Encoding": encoding})
    assert response.content.endswith(b"}\n")
    body = response.json()
    assert response.headers.get("Content-Encoding", "identity") == encoding
    assert response.headers["Vary"] == "Accept-Encoding"
    assert (body["id"], body["state"]) == (task_id, "SUCCESS")
    assert body["result"] == result
    assert body["links"]["self"] == f"/score/{task_id}"


def test_zstd_answer_is_one_frame(http, large):
    url = f"/score/{large[0]}"
    with http.stream("GET", url, headers={"Accept-Encoding": "zstd"}) as response:
        compressed = b"".join(response.iter_raw())
    frame = zstandard.ZstdDecompressor().decompressobj()
    frame.decompress(compressed)
    assert frame.eof
    assert frame.unused_data == b""


def test_head_tells_the_length_and_sends_nothing(http, large):
    headers = {"Accept-Encoding": "identity"}
    with http.stream("GET", f"/score/{large[0]}", headers=headers) as response:
        length = int(response.headers["Content-Length"])
    answer = http.head(f"/score/{large[0]}", headers=headers)
    assert int(answer.headers["Content-Length"]) == length > 45_000_000
    assert answer.content == b""


def test_waiting_request_gets_the_large_result(http, outcomes):
    result = a_large_result(100_000)
    task_id = http.post("/score", json={"text": "hello"}).json()["id"]
    outcomes.succeed(task_id, result)
    assert http.get(f"/score/{task_id}?wait=5").json()["result"] == result


def test_failed_items_of_a_large_result_are_problems(http, outcomes):
    fields = {"items": [{"text": "a", "custom_id": "1"}, {"text": "b", "custom_id": "2"}]}
    task_id = http.post("/score", json=fields).json()["id"]
    failed = {"code": "out_of_memory", "message": "too big", "retryable": True}
    good = {"custom_id": "1", "result": a_large_result(200_000)}
    items = [good, {"custom_id": "2", "error": failed}]
    outcomes.succeed(task_id, {"items": items, "model": {"name": "m"}})
    first, second = http.get(f"/score/{task_id}").json()["result"]["items"]
    assert first == good
    assert second["error"]["type"] == "out_of_memory"


def test_erased_large_result_is_gone_from_redis(http, outcomes):
    task_id = http.post("/score", json={"text": "hello"}).json()["id"]
    outcomes.succeed(task_id, a_large_result(100_000))
    assert outcomes.client.exists(keys.result(task_id))
    assert http.delete(f"/score/{task_id}").status_code == 204
    assert not outcomes.client.exists(keys.result(task_id))
    assert http.get(f"/score/{task_id}").status_code == 410


def test_result_that_goes_while_it_is_sent_is_a_broken_answer(web, http, outcomes):
    task_id = http.post("/score", json={"text": "hello"}).json()["id"]
    outcomes.succeed(task_id, a_large_result(50_000_000))
    with http.stream("GET", f"/score/{task_id}", headers={"Accept-Encoding": "gzip"}) as response:
        pieces = response.iter_raw()
        next(pieces)
        outcomes.client.delete(keys.result(task_id))
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)
    log = wait_until(lambda: "An answer broke off" in (log := web.log.read_text()) and log)
    assert '"event":"An answer broke off: JobGone"' in log
    assert "Traceback" not in log


def test_record_whose_result_is_missing_is_gone(http, outcomes):
    task_id = http.post("/score", json={"text": "hello"}).json()["id"]
    outcomes.succeed(task_id, a_large_result(100_000))
    outcomes.client.delete(keys.result(task_id))
    assert http.get(f"/score/{task_id}").status_code == 410


@pytest.fixture(scope="module")
def large_batch(http, outcomes) -> str:
    """The path of the results of a batch of three lines; that of the second has 50 MB."""
    lines = b'{"text": "a"}\n{"text": "b", "custom_id": "b"}\n{"text": "c"}\n'
    headers = {"Content-Type": "application/x-ndjson"}
    path = http.post("/batches", content=lines, headers=headers).headers["Location"]
    task_id = f"{path.rpartition('/')[2]}.0"
    (opened,) = outcomes.store.open_jobs([task_id])
    requests, num_bytes = opened.job.requests, opened.job.num_bytes
    scores = [{"num_bytes": 1}, a_large_result(50_000_000), ScoringFailed("no")]
    results = part_results(part_id(task_id), requests, scores, num_bytes)
    record = success_record(task_id, None, opened.job.facts(), time.time())
    outcomes.store.conclude([Ending(task_id, record, results=results)])
    return f"{path}/results"


def test_page_with_a_large_result_is_whole(http, large_batch, large):
    response = http.get(large_batch)
    first, second, third = map(orjson.loads, response.content.splitlines())
    assert (first["index"], first["result"]) == (0, {"num_bytes": 1})
    assert (second["custom_id"], second["result"]) == ("b", large[1])
    assert third["error"]["type"] == "scoring_failed"
    assert response.headers["Next-After"] == "3"
    only = http.get(large_batch, params={"after": "2"})
    assert orjson.loads(only.content) == third


@pytest.mark.parametrize("what", ["job", "batch"])
def test_clients_that_do_not_read_cost_little_memory(web, http, large, large_batch, what):
    assert web.process is not None
    (process,) = psutil.Process(web.process.pid).children()
    url = {"job": f"/score/{large[0]}", "batch": large_batch}[what]
    with http.stream("GET", url, headers={"Accept-Encoding": "zstd"}) as response:
        list(response.iter_raw())
    before = process.memory_info().rss
    idle = [an_idle_reader(web.port, url) for _ in range(NUM_CLIENTS)]
    try:
        # Each has its header and as much of the body as its buffers take.
        wait_until(lambda: all(client.recv(1, socket.MSG_PEEK) for client in idle), 30)
        time.sleep(1)
        growth = process.memory_info().rss - before
    finally:
        for client in idle:
            client.close()
    assert growth < NUM_CLIENTS * MAX_GROWTH_PER_CLIENT


def an_idle_reader(port: int, url: str) -> socket.socket:
    """A client that asks for the result and does not read the answer."""
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    request = f"GET {url} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: zstd\r\n\r\n"
    client.sendall(request.encode())
    return client
