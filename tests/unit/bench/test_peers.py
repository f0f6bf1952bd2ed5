"""The load and the bookkeeping of the comparison with LitServe and FastAPI."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import orjson
import psutil
import pytest

from bench.peers.__main__ import load_figures, medians
from bench.peers.load import AnswerInvalid, Load, read_head, send_for
from bench.peers.process_use import cpu_s, memory
from bench.texts import MAX_TEXT_BYTES, MIN_TEXT_BYTES, make_texts
from tests.conftest import HANG_S


def test_texts_have_20_to_200_bytes_and_are_the_same_each_time():
    texts = make_texts(300)

    sizes = [len(text.encode()) for text in texts]
    assert MIN_TEXT_BYTES <= min(sizes) <= max(sizes) <= MAX_TEXT_BYTES
    assert len(set(sizes)) > 100
    assert texts == make_texts(300)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"http/1.1 200 ok\r\ncontent-length: 7\r\n\r\n", (200, 7, True)),
        (
            b"http/1.1 202 accepted\r\nconnection: close\r\ncontent-length:0\r\n\r\n",
            (202, 0, False),
        ),
    ],
)
def test_the_head_of_an_answer_tells_status_length_and_whether_to_go_on(head, expected):
    assert read_head(head) == expected


def test_an_answer_without_a_length_is_refused():
    with pytest.raises(AnswerInvalid):
        read_head(b"http/1.1 200 ok\r\n\r\n")


async def _serve(answers, seen):
    """A server that gives each request the next of `answers`, and closes each third connection."""

    async def handle(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            line = head.split(b"\r\n", 1)[0].decode()
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            seen.append((line, await reader.readexactly(length)))
            status, body = answers(len(seen))
            closes = "Connection: close\r\n" if len(seen) % 3 == 0 else ""
            text = orjson.dumps(body)
            answer = f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n{closes}\r\n"
            writer.write(answer.encode() + text)
            if closes:
                break
        writer.close()

    async def quietly(reader, writer):
        try:
            await handle(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    return await asyncio.start_server(quietly, "127.0.0.1", 0)


RESULT = {"result": None}


def _load(answers, seen, **options):
    async def run():
        async with await _serve(answers, seen) as server:
            port = server.sockets[0].getsockname()[1]
            return await send_for(port, ["a", "b"], **options)

    return asyncio.run(run())


def test_every_text_is_sent_once_in_turn_over_connections_that_a_server_may_close():
    seen = []

    load = _load(lambda _: (200, RESULT), seen, num_clients=2, num_texts=10)

    assert load.num_texts == len(seen) == 10
    sent = sorted(orjson.loads(body)["text"] for _, body in seen)
    assert sent == ["a"] * 5 + ["b"] * 5
    assert load.elapsed_s * 1000 >= max(load.latencies_ms)


def test_a_client_asks_again_for_the_result_until_it_is_there():
    seen = []

    def answers(number):
        links = {"self": "/score/x"}
        unfinished = [(202, {"state": "QUEUED", "links": links})]
        unfinished += [(200, {"state": "STARTED", "links": links})]
        return [*unfinished, (200, {"state": "SUCCESS", **RESULT})][number - 1]

    load = _load(answers, seen, num_clients=1, num_texts=1)

    assert (load.num_texts, load.num_unfinished_answers) == (1, 2)
    lines = [line for line, _ in seen]
    assert lines == ["POST /score HTTP/1.1", *["GET /score/x?wait=30 HTTP/1.1"] * 2]


@pytest.mark.parametrize("answer", [(503, RESULT), (200, {"state": "FAILURE", "error": {}})])
def test_an_answer_without_a_result_ends_the_load(answer):
    with pytest.raises(ExceptionGroup):
        _load(lambda _: answer, [], num_clients=1, num_texts=1)


def test_a_job_that_does_not_end_in_time_ends_the_load():
    unfinished = (202, {"state": "QUEUED", "links": {"self": "/score/x"}})
    began = time.monotonic()
    with pytest.raises(ExceptionGroup) as raised:
        _load(lambda _: unfinished, [], num_clients=2, num_texts=2, answer_limit_s=0.3)
    assert raised.group_contains(AnswerInvalid, match=r"no result after 0\.3 s")
    assert 0.3 <= time.monotonic() - began < HANG_S


def test_a_load_without_a_result_has_no_percentile():
    with pytest.raises(AnswerInvalid, match="no text has a result"):
        Load().percentile_ms(0.5)


def test_a_load_ends_when_its_time_is_over():
    seen = []

    load = _load(lambda _: (200, RESULT), seen, num_clients=3, seconds=0.2)

    assert load.num_texts == len(seen)
    assert 0.2 <= load.elapsed_s < HANG_S


def test_figures_are_per_text():
    latencies_ms = [float(each) for each in range(1, 101)]
    load = Load(latencies_ms, num_unfinished_answers=3, elapsed_s=4)

    figures = load_figures(load, {"": 0.5, "web_": 0.2})

    assert figures == {
        "cpu_ms_per_text": 5.0,
        "web_cpu_ms_per_text": 2.0,
        "texts_per_s": 25.0,
        "p50_ms": 50.0,
        "p95_ms": 95.0,
        "unfinished_answers": 3,
    }


def test_a_figure_is_the_median_of_its_rounds():
    assert medians({"cpu_ms": [3.0, 1.0, 2.0], "idle_ms": [5.0]}) == {"cpu_ms": 2.0, "idle_ms": 5.0}


# The child computes, says so and waits; the parent only waits.
_BUSY = "sum(range(30_000_000)); print('done', flush=True); input()"
_PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def test_the_use_of_a_process_includes_its_children():
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, _BUSY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        parent = psutil.Process(process.pid)
        own_s, own_mb = sum(parent.cpu_times()[:2]), parent.memory_info().rss / 1e6
        all_s, all_memory = cpu_s(parent), memory(parent)
        os.killpg(process.pid, signal.SIGKILL)

    assert all_s > own_s + 0.1
    assert all_memory.rss_mb > 1.5 * own_mb
    assert 0 < all_memory.pss_mb <= all_memory.rss_mb
