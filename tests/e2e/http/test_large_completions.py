"""Large completions: in the memory of the web server they take little, and all of it is counted."""

import random
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.client import HTTPResponse

import httpx
import orjson
import pytest

from contract import keys
from contract.batches import part_id, part_results
from contract.errors import OutOfMemory, error_body
from contract.messages import success_record
from contract.store.jobs.endings import Ending
from contract.stored_results import encode_success
from tests.conftest import wait_until
from tests.waiting_messages import take
from tests.web import Outcomes, WebServer

NUM_LOGPROBS = 20
SCORED = {"max_tokens": 0, "echo": True, "logprobs": NUM_LOGPROBS}
PROMPT_BYTES = 10_000
LARGE = {**SCORED, "prompt": ["x" * PROMPT_BYTES] * 4}
LONG_BYTES = 32_000
MODEL = {"name": "m", "fingerprint": "f"}
# Two are made at once. The forms in between of the longest take about 100 MB each.
MAKING_BYTES = 200e6


@pytest.fixture(scope="module")
def web(web_redis, tmp_path_factory):
    """A web server that believes in a worker."""
    server = WebServer(tmp_path_factory.mktemp("web"), web_redis.url).start()
    outcomes = Outcomes(server)
    outcomes.pose_as_worker({"name": "w"})
    outcomes.client.close()
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


def scores_of(num_bytes: int) -> dict:
    """The scores of a text of this length, in about as many digits as real ones have."""
    rng = random.Random(7)

    def nats() -> float:
        return -round(rng.expovariate(0.3), 6)

    rows = [[[rng.randrange(256), nats()] for _ in range(NUM_LOGPROBS)] for _ in range(100)]
    numbers = {"log_prob_nats": [nats() for _ in range(num_bytes)], "rank": [2] * num_bytes}
    return {"num_bytes": num_bytes, "bytes": numbers, "top_k": rows * (num_bytes // 100)}


ITEM = {"result": scores_of(PROMPT_BYTES)}


def post(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


@contextmanager
def sent(web: WebServer, requests: list[bytes]) -> Iterator[list[socket.socket]]:
    """Clients that send a request each, and read no more than a test asks for."""
    with ExitStack() as stack:
        clients = []
        for request in requests:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", web.port), 60))
            client.sendall(request)
            clients.append(client)
        yield clients


@contextmanager
def waiting(
    web: WebServer, outcomes: Outcomes, number: int, fields: dict
) -> Iterator[tuple[list[socket.socket], list[str]]]:
    """Clients that wait for a completion each, and the task IDs of these."""
    before = set(outcomes.client.hkeys(keys.LIVE_JOBS))
    with sent(web, [post("/v1/completions", orjson.dumps(fields))] * number) as clients:
        wait_until(partial(is_open, web, number), timeout_s=60)
        # Each has its place before its job is accepted.
        wait_until(lambda: len(set(outcomes.client.hkeys(keys.LIVE_JOBS)) - before) == number)
        live = set(outcomes.client.hkeys(keys.LIVE_JOBS)) - before
        yield clients, [task_id.decode() for task_id in live]
    # All that was taken for them comes back, and nothing of them is kept.
    wait_until(partial(is_open, web, 0), timeout_s=60)
    for task_id in live:
        assert not outcomes.client.exists(keys.record(task_id.decode()))
        assert not outcomes.client.exists(keys.result(task_id.decode()))


def end(outcomes: Outcomes, task_ids: list[str], items: list[dict]) -> None:
    """End jobs together, all with the same result."""
    endings = []
    for opened in outcomes.store.open_jobs(task_ids):
        result = {"items": items, "model": MODEL}
        facts = opened.job.facts()
        record, stored = encode_success(opened.task_id, result, facts, time.time())
        endings.append(Ending(opened.task_id, record, stored_result=stored))
    outcomes.store.conclude(endings)


def begun_answer(client: socket.socket) -> HTTPResponse:
    """The answer that a client gets; only its header is read here."""
    answer = HTTPResponse(client)
    answer.begin()
    return answer


def status_of(client: socket.socket) -> int:
    return begun_answer(client).status


@contextmanager
def peak_growth(web: WebServer) -> Iterator[list[int]]:
    """Put into the list by how many bytes the web server's memory grew at most."""
    (process,) = web.workers()
    before, found, is_over = process.memory_info().rss, [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.02):
            found[0] = max(found[0], process.memory_info().rss - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()


def test_large_completions_that_end_together_are_all_answered_in_bounded_memory(web, outcomes):
    with waiting(web, outcomes, 4, LARGE) as (clients, task_ids), peak_growth(web) as growth:
        end(outcomes, task_ids, [ITEM] * 4)
        answers = list(map(begun_answer, clients))
        assert [answer.status for answer in answers] == [200] * 4
        answer = orjson.loads(answers[0].read())
        for each in answers:
            each.close()
    assert growth[0] < MAKING_BYTES
    assert (answer["model"], answer["system_fingerprint"]) == ("m", "f")
    assert answer["usage"]["prompt_tokens"] == 4 * PROMPT_BYTES
    assert [choice["index"] for choice in answer["choices"]] == list(range(4))
    for choice in answer["choices"]:
        assert choice["text"] == "x" * PROMPT_BYTES
        log_probs = choice["logprobs"]
        assert log_probs["token_logprobs"] == ITEM["result"]["bytes"]["log_prob_nats"]
        assert len(log_probs["top_logprobs"]) == len(log_probs["tokens"]) == PROMPT_BYTES


def test_error_of_an_item_of_a_large_result_is_the_answer(web, outcomes):
    items = [ITEM, {"error": error_body(OutOfMemory("too big"))}]
    fields = {**SCORED, "prompt": ["x" * PROMPT_BYTES] * 2}
    with waiting(web, outcomes, 1, fields) as ((client,), task_ids):
        end(outcomes, task_ids, items)
        answer = begun_answer(client)
        assert (answer.status, orjson.loads(answer.read())["type"]) == (503, "out_of_memory")


def test_waiting_completions_keep_nothing_but_their_prompts(web, outcomes):
    body = orjson.dumps({"max_tokens": 0, "echo": True, "prompt": [[319] * 4096] * 128})
    (process,) = web.workers()
    found = []
    with ExitStack() as stack:
        # One after another, so that what it takes to check one comes once.
        for number in range(1, 21):
            stack.enter_context(sent(web, [post("/v1/completions", body)]))
            wait_until(partial(is_open, web, number))
            found.append(process.memory_info().rss)
    assert found[-1] - found[4] < 15 * len(body)
    wait_until(partial(is_open, web, 0), timeout_s=60)


def is_open(web: WebServer, number: int) -> bool:
    return web.num_open("wait") == number


def test_completion_has_its_room_before_it_is_scored(web, outcomes):
    """Of one client; another's is still taken."""
    fields = {**SCORED, "prompt": "x" * LONG_BYTES}
    with waiting(web, outcomes, 3, fields) as (clients, task_ids), web.client() as http:
        assert http.post("/v1/completions", json=fields).json()["type"] == "overloaded"
        other = httpx.HTTPTransport(local_address="127.0.0.2")
        with (
            httpx.Client(base_url=web.url, transport=other, timeout=1) as http_of_other,
            pytest.raises(httpx.ReadTimeout),
        ):
            http_of_other.post("/v1/completions", json=fields)
        end(outcomes, task_ids, [{"result": scores_of(LONG_BYTES)}])
        assert [status_of(client) for client in clients] == [200] * 3


def completed_file(web: WebServer, outcomes: Outcomes, num_lines: int) -> str:
    """The ID of the output of a batch of completions with lines of about 13 MB each."""
    body = {**SCORED, "prompt": "x" * LONG_BYTES}
    lines = b"".join(
        orjson.dumps(
            {"custom_id": str(n), "method": "POST", "url": "/v1/completions", "body": body},
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for n in range(num_lines)
    )
    form = {"files": {"file": ("in.jsonl", lines)}, "data": {"purpose": "batch"}}
    window = {"endpoint": "/v1/completions", "completion_window": "24h"}
    scores = scores_of(LONG_BYTES)
    with web.client() as http:
        file_id = http.post("/v1/files", **form).json()["id"]
        batch = http.post("/v1/batches", json={"input_file_id": file_id, **window}).json()
        while message := take(outcomes.client, keys.BULK):
            task_id = str(orjson.loads(message)["headers"]["id"])
            for opened in outcomes.store.open_jobs([task_id]):
                # Other messages are of completions that were erased.
                if part := part_id(opened.task_id):
                    job = opened.job
                    of_all = [scores] * len(job.requests)
                    results = part_results(part, job.requests, of_all, job.num_bytes, MODEL)
                    record = success_record(task_id, None, job.facts(), time.time())
                    outcomes.store.conclude([Ending(task_id, record, results=results)])
        return http.get(f"/v1/batches/{batch['id']}").json()["output_file_id"]


def get_content(file_id: str) -> bytes:
    return f"GET /v1/files/{file_id}/content HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def test_files_of_completions_that_nobody_reads_take_the_memory_that_is_counted(web, outcomes):
    file_id = completed_file(web, outcomes, 1)
    with (
        web.client() as http,
        peak_growth(web) as growth,
        sent(web, [get_content(file_id)] * 3) as clients,
    ):
        num_served = 0
        while not all(map(has_answer, clients)):
            assert http.get("/healthz").is_success
            num_served += 1
        # A busy machine takes longer for both. 360 were seen, and 16 with answers that are made in
        # the thread that serves.
        assert num_served > 80
        assert [status_of(client) for client in clients] == [200] * 3
        assert http.get(f"/v1/files/{file_id}/content").status_code == 503
        with sent_by_another(web, file_id) as answer:
            assert answer.status_code == 200
    assert growth[0] < MAKING_BYTES + 4 * 25e6


def has_answer(client: socket.socket) -> bool:
    return bool(select.select([client], [], [], 0)[0])


@contextmanager
def sent_by_another(web: WebServer, file_id: str) -> Iterator[httpx.Response]:
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    with (
        httpx.Client(base_url=web.url, transport=transport, timeout=60) as http,
        http.stream("GET", f"/v1/files/{file_id}/content") as answer,
    ):
        yield answer


def test_file_of_large_lines_comes_whole_beside_others_that_fill_the_room(web, outcomes):
    file_id = completed_file(web, outcomes, 2)
    with web.client() as http, sent(web, [get_content(file_id)] * 2) as unread:
        wait_until(lambda: all(map(has_answer, unread)), timeout_s=60)
        with http.stream("GET", f"/v1/files/{file_id}/content") as answer:
            pieces = answer.iter_raw()
            received = [next(pieces)]
            with sent(web, [get_content(file_id)] * 2) as more:
                # There is room for three.
                assert [status_of(client) for client in more] == [503, 503]
            received += pieces
    lines = list(map(orjson.loads, b"".join(received).splitlines()))
    assert [line["custom_id"] for line in lines] == ["0", "1"]
    for line in lines:
        (choice,) = line["response"]["body"]["choices"]
        assert len(choice["logprobs"]["top_logprobs"]) == LONG_BYTES
