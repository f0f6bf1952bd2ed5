"""The life of a batch as an HTTP client sees it: upload, follow, page through results, end."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import orjson
import pytest
import zstandard

from app.responses.batch_models import BatchView
from contract import keys
from tests.conftest import LIMITS, wait_until
from tests.waiting_messages import waiting
from tests.web import WebServer

NDJSON = {"Content-Type": "application/x-ndjson"}
WAIT_S = 300


@pytest.fixture(scope="module", autouse=True)
def _id_secret(outcomes):
    """Made with the first ID; here, so that it is no test's trace."""
    outcomes.store.id_secret()


@pytest.fixture(scope="module")
def web(web_redis, tmp_path_factory):
    """A server that cuts parts of three lines."""
    folder = tmp_path_factory.mktemp("web")
    limits = {"micro_batch_texts": 3, "max_upload_lines": 5000, "max_upload_errors": 100}
    # No test waits for this long.
    times = {"max_wait_s": WAIT_S, "web_timeout_s": WAIT_S}
    server = WebServer(folder, web_redis.url, **limits, **times, max_queued_batches=50).start()
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


def ndjson(*lines) -> bytes:
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


def numbered(count: int) -> bytes:
    """Lines named by their numbers, each of as many bytes as its number and one."""
    return ndjson(*({"custom_id": str(n), "text": "x" * (n + 1)} for n in range(count)))


def posted(http, body: bytes, headers=(), **query) -> httpx.Response:
    return http.post("/batches", content=body, headers={**NDJSON, **dict(headers)}, params=query)


def accepted(http, body: bytes, **options) -> str:
    response = posted(http, body, **options)
    assert response.status_code == 202, response.text
    return response.headers["Location"]


def page(http, path: str, **query) -> tuple[list[dict], httpx.Headers]:
    response = http.get(f"{path}/results", params=query)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()], response.headers


def score_all(outcomes) -> None:
    while outcomes.score_next_part():
        pass


def counts(http, path: str) -> tuple:
    return tuple(http.get(path).json()["request_counts"].values())


def test_accepted_batch_tells_its_state_and_its_counts(http, outcomes):
    response = posted(http, numbered(7))
    body = response.json()
    BatchView.model_validate(body)
    assert response.status_code == 202
    assert response.headers["Location"] == f"/batches/{body['id']}" == body["links"]["self"]
    assert 1 <= int(response.headers["Retry-After"]) <= 30
    assert (body["object"], body["status"]) == ("batch", "in_progress")
    assert body["request_counts"] == {"total": 7, "completed": 0, "failed": 0}
    assert body["num_bytes"] == 28
    assert http.get(response.headers["Location"]).json() == body
    score_all(outcomes)


def test_small_batch_is_asked_for_again_soon(http, outcomes):
    outcomes.pose_as_worker({"name": "slow", "bytes_per_s": 10.0})
    path = accepted(http, numbered(7))
    try:
        # The speed is asked for once a second.
        wait_until(lambda: http.get(path).headers["Retry-After"] == "3")
        assert page(http, path)[1]["Retry-After"] == "3"
    finally:
        outcomes.client.delete(keys.lease("slow"))
        score_all(outcomes)


def test_results_come_in_order_while_the_batch_goes_on(http, outcomes):
    path = accepted(http, numbered(7))
    found, headers = page(http, path)
    assert (found, headers["Next-After"]) == ([], "0")
    assert "Retry-After" in headers
    assert 'rel="next"' in headers["Link"]
    outcomes.score_next_part()
    assert counts(http, path) == (7, 3, 0)
    found, headers = page(http, path)
    assert [line["index"] for line in found] == [0, 1, 2]
    assert headers["Next-After"] == "3"
    score_all(outcomes)
    found, headers = page(http, path, after=3)
    assert [(line["index"], line["custom_id"]) for line in found] == [
        (n, str(n)) for n in range(3, 7)
    ]
    assert [line["result"]["num_bytes"] for line in found] == [4, 5, 6, 7]
    assert "Link" not in headers
    body = http.get(path).json()
    assert (body["status"], body["model"]) == ("completed", {"name": "m"})
    assert body["expires_at"] > body["completed_at"] >= body["in_progress_at"]
    assert "cancel" not in body["links"]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 9, 10, 11, 10**30])
def test_page_may_begin_and_end_anywhere(http, finished, after, limit):
    found, headers = page(http, finished, after=after, limit=limit)
    assert [line["index"] for line in found] == list(range(10))[after : after + limit]
    assert int(headers["Next-After"]) == min(after + limit, 10)
    assert ("Link" in headers) == (after + limit < 10)


@pytest.fixture(scope="module")
def finished(http, outcomes):
    """Path of a batch of ten lines that are scored."""
    path = accepted(http, numbered(10))
    score_all(outcomes)
    return path


def test_next_link_leads_through_all_results(http, finished):
    found, url = [], f"{finished}/results?limit=4"
    while url:
        response = http.get(url)
        found += [json.loads(line)["index"] for line in response.text.splitlines()]
        url = response.links.get("next", {}).get("url")
    assert found == list(range(10))


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_results_are_compressed_where_that_is_accepted(web, finished, encoding):
    with (
        httpx.Client(base_url=web.url, timeout=60) as client,
        client.stream(
            "GET", f"{finished}/results", headers={"Accept-Encoding": encoding}
        ) as response,
    ):
        body = b"".join(response.iter_raw())
    assert response.headers["Content-Encoding"] == encoding
    decompress = {
        "gzip": gzip.decompress,
        "zstd": lambda b: zstandard.ZstdDecompressor().decompressobj().decompress(b),
    }[encoding]
    assert len(decompress(body).splitlines()) == 10


@pytest.mark.parametrize(
    "query",
    [
        {"after": "-1"},
        {"after": "x"},
        {"after": "1.5"},
        {"limit": "0"},
        {"limt": "1"},
        {"wait": "x"},
    ],
)
def test_bad_query_of_results_is_refused(http, finished, query):
    response = http.get(f"{finished}/results", params=query)
    assert response.status_code == 422
    assert response.json()["errors"][0]["parameter"] in query


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstandard.compress)]
)
def test_compressed_upload_is_the_same_batch(http, outcomes, encoding, compress):
    path = accepted(http, compress(numbered(4)), headers={"Content-Encoding": encoding})
    assert counts(http, path) == (4, 0, 0)
    score_all(outcomes)


def test_skipped_lines_are_results_with_their_errors_in_place(http, outcomes):
    body = ndjson({"text": "a"}) + b"\n{nope\n" + ndjson({"custom_id": "e", "text": ""})
    path = accepted(http, body, on_error="skip")
    score_all(outcomes)
    found, _ = page(http, path)
    assert [line["status"] for line in found] == ["SUCCESS", "FAILURE", "FAILURE"]
    assert [line["index"] for line in found] == [0, 1, 2]
    assert found[1]["error"]["type"] == "malformed_body"
    assert (found[2]["custom_id"], found[2]["error"]["type"]) == ("e", "empty_text")
    assert (found[2]["error"]["line"], found[2]["error"]["status"]) == (4, 422)
    assert counts(http, path) == (3, 1, 2)


def test_upload_of_bad_lines_alone_is_refused_and_leaves_nothing_behind(http, outcomes):
    before = sorted(outcomes.client.keys())
    body = zstandard.compress(b"x\n" * 4_000)
    assert len(body) < 100
    response = posted(http, body, headers={"Content-Encoding": "zstd"}, on_error="skip")
    problem = response.json()
    assert (response.status_code, problem["limit_errors"]) == (422, 100)
    assert [error["line"] for error in problem["errors"]] == [*range(1, 11)]
    assert sorted(outcomes.client.keys()) == before


def test_bomb_of_zstd_is_refused_and_leaves_nothing_behind(http, outcomes):
    before = sorted(outcomes.client.keys())
    body = zstandard.compress(ndjson({"text": "x" * 10_000}) * 2_000)
    assert len(body) < 20_000
    response = posted(http, body, headers={"Content-Encoding": "zstd"})
    assert (response.status_code, response.json()["limit_ratio"]) == (413, 400)
    assert sorted(outcomes.client.keys()) == before


def test_client_may_have_as_many_batches_as_are_free(web, http, outcomes):
    num_live = http.get("/stats").json()["batches"]["batches"]
    paths = [accepted(http, numbered(1)) for _ in range(25 - num_live)]
    response = posted(http, numbered(1))
    problem = response.json()
    assert (response.status_code, problem["type"]) == (503, "overloaded")
    assert (problem["queued_batches"], problem["max_queued_batches"]) == (25, 50)
    assert "share" in problem["detail"]
    assert "Retry-After" in response.headers
    assert http.get("/stats").json()["batches"]["max_batches"] == 50
    transport = httpx.HTTPTransport(local_address="127.0.0.2", limits=LIMITS)
    with httpx.Client(base_url=web.url, transport=transport, timeout=60) as other:
        http.delete(accepted(other, numbered(1)))
    http.delete(paths[0])
    http.delete(accepted(http, numbered(1)))
    score_all(outcomes)


REFUSALS = {
    "bad-line": (numbered(5) + b"{nope\n", {}, 422, "invalid_request"),
    "no-lines": (b"\n\n", {}, 422, "invalid_request"),
    "nothing": (b"", {}, 422, "invalid_request"),
    "too-many-lines": (b"\n" * 6000, {}, 413, "body_too_large"),
    "cut-gzip": (
        gzip.compress(numbered(5))[:-5],
        {"Content-Encoding": "gzip"},
        400,
        "malformed_body",
    ),
    "not-zstd": (numbered(5), {"Content-Encoding": "zstd"}, 400, "malformed_body"),
    "brotli": (numbered(5), {"Content-Encoding": "br"}, 415, "unsupported_media_type"),
    "csv": (numbered(5), {"Content-Type": "text/csv"}, 415, "unsupported_media_type"),
    "json": (numbered(5), {"Content-Type": "application/json"}, 400, "malformed_body"),
    "object": (numbered(1), {"Content-Type": "application/json"}, 422, "invalid_request"),
    "element": (
        b'[{"text": "x"}, "y"]',
        {"Content-Type": "application/json"},
        422,
        "invalid_request",
    ),
    "element-twice": (
        b'[{"text": "x", "text": "y"}]',
        {"Content-Type": "application/json"},
        400,
        "malformed_body",
    ),
    "no-elements": (b"[]", {"Content-Type": "application/json"}, 422, "invalid_request"),
    "latin-1": (
        numbered(5),
        {"Content-Type": "application/x-ndjson; charset=latin-1"},
        415,
        "unsupported_media_type",
    ),
    "bad-key": (numbered(5), {"Idempotency-Key": "a b"}, 422, "invalid_request"),
}


@pytest.mark.parametrize(("body", "headers", "status", "code"), REFUSALS.values(), ids=REFUSALS)
def test_refused_upload_leaves_nothing_behind(http, outcomes, body, headers, status, code):
    before = sorted(outcomes.client.keys())
    response = posted(http, body, headers=headers)
    assert (response.status_code, response.json()["type"]) == (status, code)
    assert sorted(outcomes.client.keys()) == before


def test_array_of_json_is_the_same_batch_as_its_lines(http, outcomes):
    key = {"Idempotency-Key": "array-1"}
    lines = b'{"text":"a\\nb","spans":[[0,1.0]]}\n{"text":"c"}\n'
    array = b'[ {"text": "a\\nb", "spans": [[0, 1.0]]},\n {"text": "c"} ]'
    first = posted(http, lines, headers=key)
    again = posted(http, array, headers={**key, "Content-Type": "application/json"})
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.json()["request_counts"]["total"] == 2
    score_all(outcomes)


def test_array_with_a_bad_element_is_refused_as_a_whole(http):
    json_type = {"Content-Type": "application/json"}
    response = posted(http, b'[{"text": "a"}, {"text": 1}]', json_type, on_error="skip")
    assert (response.status_code, response.json()["line"]) == (422, 2)


def test_array_is_refused_beyond_what_a_request_may_hold(http):
    body = b"[" + b'{"text": "x"},' * 600_000 + b"0]"
    response = posted(http, body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["type"]) == (413, "body_too_large")


def test_upload_of_a_vanished_client_leaves_nothing_behind(http, outcomes, web):
    before = sorted(outcomes.client.keys())

    def some_lines():
        yield numbered(1500)
        # By now the first group of parts is stored.
        wait_until(lambda: len(outcomes.client.keys()) > len(before))
        raise KeyboardInterrupt

    with web.client() as client, pytest.raises(KeyboardInterrupt):
        client.post("/batches", content=some_lines(), headers=NDJSON)
    wait_until(lambda: sorted(outcomes.client.keys()) == before)


def test_same_key_and_upload_are_one_batch_however_compressed(http, outcomes):
    headers = {"Idempotency-Key": "file-1"}
    first = posted(http, numbered(4), headers=headers)
    again = posted(
        http, gzip.compress(numbered(4)), headers={**headers, "Content-Encoding": "gzip"}
    )
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(waiting(outcomes.client, keys.BULK)) == 2
    other = posted(http, numbered(5), headers=headers)
    assert (other.status_code, other.json()["type"]) == (422, "idempotency_key_reused")
    options = posted(http, numbered(4), headers=headers, outputs="bytes")
    assert options.status_code == 422
    score_all(outcomes)


def test_retry_of_an_erased_upload_is_not_scored_again(http, outcomes):
    headers = {"Idempotency-Key": "file-2"}
    http.delete(posted(http, numbered(4), headers=headers).headers["Location"])
    retried = posted(http, numbered(4), headers=headers)
    assert (retried.status_code, retried.json()["type"]) == (410, "job_gone")
    assert "with a new key" in retried.json()["detail"]
    assert not outcomes.client.exists(keys.LIVE_BATCHES)
    score_all(outcomes)


def test_reader_who_waits_receives_the_next_count(http, web, outcomes):
    def score_once_one_waits() -> None:
        wait_until(lambda: web.num_open("wait") == 1)
        outcomes.score_next_part()

    path = accepted(http, numbered(7))
    threading.Thread(target=score_once_one_waits).start()
    began_at = time.monotonic()
    body = http.get(path, params={"wait": "50"}).json()
    assert body["request_counts"]["completed"] == 3
    threading.Thread(target=score_once_one_waits).start()
    found, _ = page(http, path, after=3, wait=50)
    assert [line["index"] for line in found] == [3, 4, 5]
    # Both came before the 50 s that each asked for, on a busy machine too.
    assert time.monotonic() - began_at < 45
    score_all(outcomes)


@contextmanager
def waiting_readers(web, path: str, after: int, count: int) -> Iterator[list[socket.socket]]:
    """Requests for results from line `after` on that wait."""
    request = f"GET {path}/results?after={after}&wait={WAIT_S} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    num_before = web.num_open("wait")
    with ExitStack() as stack:
        readers = []
        for _ in range(count):
            reader = socket.create_connection(("127.0.0.1", web.port), timeout=60)
            readers.append(stack.enter_context(reader))
            reader.sendall(request.encode())
        wait_until(lambda: web.num_open("wait") == num_before + count)
        yield readers


def test_part_that_ends_wakes_only_those_who_wait_for_it(http, web, outcomes):
    def num_looks() -> int:
        return outcomes.client.info("commandstats").get("cmdstat_hstrlen", {"calls": 0})["calls"]

    path = accepted(http, numbered(32))
    # Each looks before it waits and once more when it is subscribed: the first at two parts, the
    # others at one.
    num_before = num_looks() + 2 * (2 + 50)
    with (
        waiting_readers(web, path, after=28, count=1) as (tenth,),
        # The first line beyond the last is that of the last part.
        waiting_readers(web, path, after=32, count=50) as last,
    ):
        wait_until(lambda: num_looks() == num_before)
        for _ in range(10):
            outcomes.score_next_part()
        assert tenth.recv(4096).startswith(b"HTTP/1.1 200")
        # Those that were woken in vain would have read by then.
        assert page(http, path, after=28)[0]
        assert num_looks() - num_before < 10
        outcomes.score_next_part()
        for reader in last:
            assert reader.recv(4096).startswith(b"HTTP/1.1 200")


def test_erased_batch_wakes_all_who_wait_for_it(http, web, outcomes):
    path = accepted(http, numbered(9))
    with (
        waiting_readers(web, path, after=0, count=3) as first,
        waiting_readers(web, path, after=8, count=3) as last,
    ):
        http.delete(path)
        for reader in first + last:
            assert reader.recv(4096).startswith(b"HTTP/1.1 410")
    score_all(outcomes)


def test_cancelled_batch_keeps_what_is_scored(http, outcomes):
    path = accepted(http, numbered(7) + b'{"text": ""}\n', on_error="skip")
    outcomes.score_next_part()
    body = http.post(f"{path}/cancel").json()
    assert body["status"] == "cancelled"
    assert body["request_counts"] == {"total": 8, "completed": 3, "failed": 5}
    found, headers = page(http, path)
    assert [line["status"] for line in found] == ["SUCCESS"] * 3 + ["REVOKED"] * 4 + ["FAILURE"]
    assert found[3]["custom_id"] == "3"
    assert found[3]["error"]["type"] == "job_cancelled"
    assert "Link" not in headers
    score_all(outcomes)
    assert counts(http, path) == (8, 3, 5)
    again = http.post(f"{path}/cancel")
    assert (again.status_code, again.json()["type"]) == (409, "job_ended")


@pytest.mark.parametrize("num_scored", [0, 1, 3])
def test_erased_batch_is_gone_and_nothing_of_it_stays(http, outcomes, num_scored):
    before = sorted(outcomes.client.keys())
    path = accepted(http, numbered(7))
    for _ in range(num_scored):
        outcomes.score_next_part()
    for _ in range(2):
        assert http.delete(path).status_code == 204
    for read in (path, f"{path}/results", f"{path}/events"):
        assert (http.get(read).status_code, http.get(read).json()["type"]) == (410, "job_gone")
    assert http.post(f"{path}/cancel").status_code == 410
    score_all(outcomes)
    assert sorted(outcomes.client.keys()) == before


@pytest.mark.parametrize("route", ["", "/results", "/events", "/cancel"])
@pytest.mark.parametrize("batch_id", ["x", "a" * 32, "%00", "a.1"])
def test_id_that_was_never_given_out_is_not_found(http, batch_id, route):
    method = "POST" if route == "/cancel" else "GET"
    response = http.request(method, f"/batches/{batch_id}{route}")
    assert (response.status_code, response.json()["type"]) == (404, "job_not_found")


def test_ids_of_jobs_and_of_batches_are_not_taken_for_each_other(http, outcomes):
    task_id = http.post("/score", json={"text": "x"}).json()["id"]
    path = accepted(http, numbered(1))
    batch_id = path.rpartition("/")[2]
    for wrong in (f"/batches/{task_id}", f"/score/{batch_id}", f"/score/{batch_id}.0"):
        assert http.get(wrong).status_code == 404
        assert http.delete(wrong).status_code == 404
    score_all(outcomes)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_id_of_another_kind_is_named_with_its_route(http, outcomes, method):
    task_id = http.post("/score", json={"text": "x"}).json()["id"]
    batch_id = accepted(http, numbered(1)).rpartition("/")[2]
    for path, words in (
        (f"/batches/{task_id}", "No batch has this ID. It is the ID of a job; use it at /score/"),
        (f"/score/{batch_id}", "No job has this ID. It is the ID of a batch; use it at /batches/"),
        (f"/v1/files/{batch_id}", "No file has this ID. It is the ID of a batch;"),
    ):
        response = http.request(method, path)
        assert (response.status_code, response.json()["type"]) == (404, "job_not_found")
        assert response.json()["detail"].startswith(words)
    score_all(outcomes)


def test_large_upload_with_a_bad_first_line_is_answered(web):
    body = b"{nope\n" + b'{"text": "x"}\n' * 1_000_000
    with web.client() as client:
        response = client.post("/batches", content=body, headers=NDJSON)
    assert response.status_code == 422
    assert response.json()["errors"][0]["line"] == 1
