"""Large completions: in the memory of the web server they take little, and all of it is counted."""

import random
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
from contract.errors import OutOfMemory, error_body
from contract.store.jobs.endings import Ending
from contract.stored_results import encode_success
from tests.conftest import wait_until
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


@pytest.fixture(autouse=True)
def _is_ready(outcomes):
    """Renew the worker's lease."""
    outcomes.pose_as_worker({"name": "w"})


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
    """The answer that a client gets, of which only the header is read."""
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
            wait_until(partial(is_open, web, number), timeout_s=30)
            found.append(process.memory_info().rss)
    assert found[-1] - found[4] < 15 * len(body)
    wait_until(partial(is_open, web, 0), timeout_s=30)


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
