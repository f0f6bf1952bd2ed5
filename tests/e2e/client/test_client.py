"""The Python client against the real service."""

import asyncio
import math
import subprocess
import sys
import threading

import httpx
import numpy as np
import pytest

import evascore
from contract.settings import REPOSITORY
from deploy.embedded_redis import free_port
from evascore.http.transport import UrlInvalid
from tests.service import Service

TEXT = "The quick brown fox"


@pytest.fixture(scope="module")
def client(scoring: Service):
    with evascore.Client(scoring.url, patience_s=30) as client:
        yield client


def test_score_is_what_the_service_answers(client, scoring):
    score = client.score(TEXT, outputs=["bytes", "top_k", "curvature"], top_k=2)
    reply = httpx.post(f"{scoring.url}/score?wait=30", json={"text": TEXT}, timeout=60).json()
    assert score.log_likelihood_nats == pytest.approx(reply["result"]["log_likelihood_nats"])
    assert sum(score.bytes.log_prob_nats) == pytest.approx(score.log_likelihood_nats)
    assert [len(likeliest) for likeliest in score.top_k] == [2] * len(TEXT)
    assert isinstance(score.curvature, float)
    assert score.model["name"] == reply["result"]["model"]["name"]
    assert score.raw["num_bytes"] == score.num_bytes == len(TEXT)


def test_spans_and_windows_are_typed(client):
    size = client.info().model["window_size"]
    score = client.score(
        "x" * (size + 40),
        spans=[[0, 40], [40, 10**9], [5, 5]],
        window={"size": size, "stride": size},
    )
    assert [(s.start, s.end) for s in score.spans] == [(0, 40), (40, size + 40), (5, 5)]
    total = sum(span.log_likelihood_nats for span in score.spans)
    assert total == pytest.approx(score.log_likelihood_nats)
    assert [span.bits_per_byte is None for span in score.spans] == [False, False, True]
    windows = [(w.start, w.end, w.context_from) for w in score.windows]
    assert windows == [(0, size, 0), (size, size + 40, size)]
    plain = client.score("x")
    assert (plain.spans, plain.windows) == (None, None)


def test_score_given_a_context_is_the_difference(client):
    whole, first = client.score(TEXT), client.score(TEXT[:9])
    rest = client.score(TEXT[9:], context=TEXT[:9])
    difference = whole.log_likelihood_nats - first.log_likelihood_nats
    assert rest.log_likelihood_nats == pytest.approx(difference, abs=1e-4)


def test_continuations_are_scored_in_order(client):
    scores = client.score_continuations("1 + 1 = ", ["2", "three", b"\xff\xfe"])
    assert [score.num_bytes for score in scores] == [1, 5, 2]


def test_many_are_scored_in_order_whatever_their_number(client):
    texts = [f"Text {number} " + "x" * (number * 7 % 50) for number in range(150)]
    done = []
    scores = list(client.score_many(texts, progress=done.append))
    assert [score.num_bytes for score in scores] == [len(text) for text in texts]
    assert done[-1] == len(texts)


def test_one_bad_text_stands_in_its_place(client):
    texts = ["a", "", "b\ud800", evascore.Text(b"\xff", custom_id="mine"), "c" * 40_000, "d"]
    outcomes = list(client.score_many(texts, errors="return"))
    assert [type(outcome) for outcome in outcomes] == [
        evascore.Score,
        evascore.EmptyText,
        evascore.RequestInvalid,
        evascore.Score,
        evascore.TextTooLarge,
        evascore.Score,
    ]
    assert outcomes[3].custom_id == "mine"


MISSING = ["one", None, "", float("nan"), math.nan, 5, ["a"], evascore.Text(None), "three"]


def test_missing_values_of_a_data_frame_stand_in_their_places(client, scoring):
    async def use():
        async with evascore.AsyncClient(scoring.url) as asynchronous:
            return [o async for o in asynchronous.score_many(MISSING * 9, errors="return")]

    for outcomes in (list(client.score_many(MISSING * 9, errors="return")), asyncio.run(use())):
        for at in range(0, len(outcomes), len(MISSING)):
            first, none, empty, *others, last = outcomes[at : at + len(MISSING)]
            assert (first.num_bytes, last.num_bytes) == (3, 5)
            assert isinstance(empty, evascore.EmptyText)
            assert [type(outcome) for outcome in (none, *others)] == [evascore.NotText] * 6
    assert len(outcomes) == 9 * len(MISSING)
    (alone,) = client.score_many([None], errors="return")
    assert isinstance(alone, evascore.NotText)


def test_first_missing_value_raises_after_the_scores_before_it(client):
    scores = client.score_many(["one", None])
    assert next(scores).num_bytes == 3
    with pytest.raises(TypeError, match=r"^texts\[1\]: .* not NoneType"):
        next(scores)


def test_numbers_of_numpy_are_options(client):
    score = client.score("abc", top_k=np.int64(2), spans=np.array([[0, 2]]))
    assert [len(likeliest) for likeliest in score.top_k] == [2] * 3
    assert score.spans[0].end == 2


def test_first_bad_text_raises_unless_errors_are_wanted(client):
    with pytest.raises(evascore.EmptyText, match=r"^texts\[40\]: There is nothing to score"):
        list(client.score_many([*"a" * 40, "", "b"]))
    with pytest.raises(evascore.EmptyText, match=r"^/items/1/text: There is nothing to score"):
        client.submit("a", "")
    with pytest.raises(evascore.ServiceUnreachable, match=r"^Cannot connect"):
        list(evascore.Client(f"http://127.0.0.1:{free_port()}", patience_s=0).score_many(["a"]))


def test_refused_upload_names_its_wrong_lines(client):
    with pytest.raises(evascore.RequestInvalid) as raised:
        client.submit_batch(["a", "b", ""])
    assert str(raised.value) == "No line was accepted. Line 3: /text is empty."
    (error,) = raised.value.errors
    assert (error["pointer"], error["line"]) == ("/text", 3)


def test_many_read_their_texts_only_as_they_go(client):
    read = []

    def texts():
        for number in range(100_000):
            read.append(number)
            yield "x"

    scores = client.score_many(texts(), concurrency=2)
    next(scores)
    scores.close()
    assert len(read) < 1000


def test_job_is_submitted_waited_for_and_erased(client):
    job = client.submit("a", evascore.Text("b", custom_id="second"), priority="bulk")
    ended = client.wait(job)
    assert ended.state == "SUCCESS"
    assert [score.custom_id for score in ended.outcomes()] == [None, "second"]
    client.erase(job)
    client.erase(job)
    with pytest.raises(evascore.JobGone):
        client.job(job)


def test_same_key_is_the_same_job(client):
    first, second = (client.submit("same", idempotency_key="one-key") for _ in range(2))
    assert first.id == second.id
    with pytest.raises(evascore.IdempotencyKeyReused):
        client.submit("other", idempotency_key="one-key")


def test_ended_job_cannot_be_cancelled(client):
    job = client.wait(client.submit("a"))
    with pytest.raises(evascore.JobEnded):
        client.cancel(job)


def test_errors_tell_what_the_service_reported(client):
    with pytest.raises(evascore.TextTooLarge) as raised:
        client.score("a" * 40_000)
    assert raised.value.type == "text_too_large"
    assert raised.value.status == 413
    assert raised.value.errors == [{"detail": "is too large", "pointer": "/text"}]
    assert raised.value.request_id
    assert not raised.value.is_retryable


def test_unknown_job_is_not_found(client):
    with pytest.raises(evascore.JobNotFound):
        client.wait("a" * 32)
    with pytest.raises(evascore.ClientError):
        client.wait("../info?a#b c")


def test_info_tells_the_limits(client):
    assert client.info().limits["max_text_bytes"] == 4095  # of the tiny model


LABELS = ["http://a..b", "http://" + "a" * 70 + ".test", "http://xn--zzzz99999.test"]


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://a", "http://", "http://a:b", *LABELS])
def test_url_that_is_none_is_refused(url):
    with pytest.raises(UrlInvalid):
        evascore.Client(url)


def test_no_concurrency_is_refused():
    async def use():
        async with evascore.AsyncClient() as client:
            return [score async for score in client.score_many(["a"], concurrency=0)]

    with pytest.raises(ValueError, match="concurrency"):
        asyncio.run(use())
    with evascore.Client() as client, pytest.raises(ValueError, match="concurrency"):
        list(client.score_many(["a"], concurrency=0))


INTERRUPTED = """
import signal, socket, sys, threading
import evascore

server = socket.create_server(("127.0.0.1", 0))

def interrupt():
    connection = server.accept()[0]
    connection.recv(1)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    threading.Event().wait()

signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=interrupt, daemon=True).start()
try:
    list(evascore.Client(f"http://127.0.0.1:{server.getsockname()[1]}").score_many(["a"]))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_interrupted_program_ends_though_no_answer_comes():
    ran = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=REPOSITORY / "client", timeout=40)
    assert ran.returncode == 130


def test_service_that_is_not_there_is_reported_within_patience():
    url = f"http://name:password@127.0.0.1:{free_port()}"
    with (
        evascore.Client(url, patience_s=0.5) as client,
        pytest.raises(evascore.ServiceUnreachable, match="Cannot connect") as raised,
    ):
        client.score("a")
    assert "password" not in str(raised.value)


def test_one_client_serves_many_threads(client):
    scores = []
    threads = [
        threading.Thread(target=lambda: scores.append(client.score(TEXT).num_bytes))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scores == [len(TEXT)] * 8


def test_asynchronous_client_does_the_same(scoring, client):
    async def use():
        async with evascore.AsyncClient(scoring.url) as client:
            score = await client.score(TEXT)
            many = [s async for s in client.score_many(["a", "bb", ""], errors="return")]
            job = await client.wait(await client.submit(TEXT))
            await client.erase(job)
            chosen = await client.score_continuations("a", ["b", "cc"])
            return score, many, job, chosen

    score, many, job, chosen = asyncio.run(use())
    assert score.log_likelihood_nats == pytest.approx(client.score(TEXT).log_likelihood_nats)
    assert [type(outcome).__name__ for outcome in many] == ["Score", "Score", "EmptyText"]
    assert job.score().num_bytes == len(TEXT)
    assert [score.num_bytes for score in chosen] == [1, 2]


def test_calls_outlast_a_restart_of_the_web_server(client, scoring):
    scoring.part("web").kill()
    scores = list(client.score_many([TEXT] * 40, timeout_s=60))
    assert len(scores) == 40
