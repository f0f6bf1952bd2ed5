"""Two models on one Redis, and changes of a model under load: no answer comes from another model.

Each answer is compared with the score of the model that it names, so a wrong label is noticed too.
"""

import itertools
import math
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import torch

from contract.store.jobs.job_store import JobStore
from model import EvaByteConfig, EvaByteForCausalLM, Scorer, ScoreRequest
from tests.conftest import wait_until
from tests.web import WebServer
from tests.worker_process import TINY_CHECKPOINT, Worker, final

NUM_ANSWERS = 1000
# Answers around a change, a quarter of them from the new model.
NUM_ANSWERS_OF_A_CHANGE = 500
NUM_CLIENTS = 8
TEXTS = [f"text number {number}" for number in range(20)]
# float32 sums in another order, over 15 bytes; the models differ by far more.
TOLERANCE_NATS = 1e-2


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory) -> Path:
    """A checkpoint of the same shape as the tiny one, with other weights."""
    folder = tmp_path_factory.mktemp("other")
    torch.manual_seed(1)
    EvaByteForCausalLM(EvaByteConfig.from_pretrained(TINY_CHECKPOINT)).save_pretrained(folder)
    return folder


class Models:
    """The scores of all texts by the fingerprint of each model."""

    def __init__(self) -> None:
        self._scores: dict[str, list[float]] = {}

    def add(self, checkpoint: Path, **choice: str) -> str:
        """Load a model and score the texts; return its fingerprint."""
        scorer = Scorer.load(str(checkpoint), **choice)
        results = scorer.score([ScoreRequest(text=text.encode()) for text in TEXTS])
        scores = [result["log_likelihood_nats"] for result in results]
        self._scores[scorer.info.fingerprint] = scores
        return scorer.info.fingerprint

    def check(self, number: int, fingerprint: str, nats: float) -> None:
        """Check that the model of this fingerprint gave this score for a text."""
        near = [
            each
            for each, scores in self._scores.items()
            if math.isclose(scores[number], nats, rel_tol=0, abs_tol=TOLERANCE_NATS)
        ]
        assert near == [fingerprint]


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def web(redis_server, tmp_path) -> Iterator[WebServer]:
    server = WebServer(tmp_path, redis_server.url, model_name="mine").start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def new_worker(redis_server, tmp_path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def make(name: str, checkpoint: Path, **settings: str) -> Worker:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        own = {"model": str(checkpoint), "model_name": "mine", "lease_s": "2", **settings}
        workers.append(Worker(folder, redis_server.url, name, **own))
        return workers[-1].start()

    yield make
    for worker in workers:
        worker.stop()


class Load:
    """Clients that send texts, one at a time each, and check every answer."""

    def __init__(self, web: WebServer, models: Models, asks: list[str | None]) -> None:
        self.fingerprints: list[str] = []
        """Of the models of all answers, in the order of the answers."""
        self._web, self._models = web, models
        self._asks = itertools.cycle(asks)
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def run(self) -> "Load":
        """Send texts until there are `NUM_ANSWERS`."""
        return self._run(lambda: len(self.fingerprints) >= NUM_ANSWERS)

    def run_through_a_change(self, new: str) -> "Load":
        """Send texts until there are enough answers, a quarter of them from the model `new`."""
        return self._run(
            lambda: (
                len(self.fingerprints) >= NUM_ANSWERS_OF_A_CHANGE
                and self.fingerprints.count(new) >= NUM_ANSWERS_OF_A_CHANGE // 4
            )
        )

    def _run(self, is_enough: Callable[[], bool]) -> "Load":
        with ThreadPoolExecutor(NUM_CLIENTS) as pool:
            clients = [pool.submit(self._send_until, is_enough) for _ in range(NUM_CLIENTS)]
            for client in clients:
                client.result()
        return self

    def _send_until(self, is_enough: Callable[[], bool]) -> None:
        with self._web.client() as http:
            while not is_enough():
                with self._lock:
                    number, asked = next(self._numbers) % len(TEXTS), next(self._asks)
                self._send(http, number, asked)

    def _send(self, http: httpx.Client, number: int, asked: str | None) -> None:
        body = {"text": TEXTS[number], **({"model": asked} if asked else {})}
        reply = http.post("/score", params={"wait": "30"}, json=body).json()
        while reply["state"] in ("QUEUED", "STARTED"):
            reply = http.get(reply["links"]["self"], params={"wait": "30"}).json()
        assert reply["state"] == "SUCCESS", reply
        result = reply["result"]
        name, _, pinned = (asked or "mine").partition("@")
        assert result["model"]["name"] == name
        fingerprint = result["model"]["fingerprint"]
        assert pinned in ("", fingerprint)
        self._models.check(number, fingerprint, result["log_likelihood_nats"])
        with self._lock:
            self.fingerprints.append(fingerprint)


def current(store: JobStore, name: str, fingerprint: str) -> Callable[[], bool]:
    return lambda: store.current_models().get(name) == fingerprint


def test_no_answer_comes_from_the_model_of_another_name(web, models, new_worker, other_checkpoint):
    mine, theirs = models.add(TINY_CHECKPOINT), models.add(other_checkpoint)
    workers = [
        new_worker("a", TINY_CHECKPOINT),
        new_worker("b", other_checkpoint, model_name="theirs/v2"),
    ]
    for worker in workers:
        worker.wait_ready()
    with web.client() as http:
        listed = {each["id"]: each for each in http.get("/v1/models").json()["data"]}
    assert {name: each["fingerprint"] for name, each in listed.items()} == {
        "mine": mine,
        "theirs/v2": theirs,
    }
    assert listed["mine"]["is_default"]

    asks = [None, "theirs/v2", "mine", f"theirs/v2@{theirs}", f"mine@{mine}"]
    load = Load(web, models, asks).run()

    assert set(load.fingerprints) == {mine, theirs}


# The scores of nf4 differ by more than a nat from those without quantization.
CHANGES = {"checkpoint": {}, "quantization": {"quantization": "nf4"}}


@pytest.mark.parametrize("choice", CHANGES.values(), ids=CHANGES)
def test_a_model_is_replaced_under_load(
    web, models, new_worker, job_store, other_checkpoint, choice
):
    checkpoint = TINY_CHECKPOINT if choice else other_checkpoint
    old, new = models.add(TINY_CHECKPOINT), models.add(checkpoint, **choice)
    first = new_worker("first", TINY_CHECKPOINT).wait_ready()
    load = Load(web, models, [None, "mine"])
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(load.run_through_a_change, new)
        wait_until(lambda: len(load.fingerprints) > 100 or running.done())
        new_worker("second", checkpoint, **choice)
        # Both serve for a moment: what was accepted before stays with the old model.
        wait_until(lambda: new in load.fingerprints or running.done(), timeout_s=120)
        first.send(signal.SIGTERM)
        running.result()

    assert set(load.fingerprints) == {old, new}
    after = load.fingerprints[load.fingerprints.index(new) + 4 * NUM_CLIENTS :]
    assert set(after) == {new}


def test_jobs_in_the_hands_of_a_killed_worker_go_to_the_model_that_replaces_it(
    web, models, new_worker, job_store, other_checkpoint
):
    old, new = models.add(TINY_CHECKPOINT), models.add(other_checkpoint)
    # A turn for each text, so that most of what was fetched is in hand when it dies.
    first = new_worker("w", TINY_CHECKPOINT, micro_batch_texts="1").wait_ready()
    wait_until(current(job_store, "mine", old))
    items = [{"text": text} for text in TEXTS]
    with web.client() as http:
        first.send(signal.SIGSTOP)
        # More than it scores while this test looks away for some seconds.
        ids = [http.post("/score", json={"items": items}).json()["id"] for _ in range(20)]
        first.send(signal.SIGCONT)
        wait_until(lambda: any(job_store.read(each).state != "QUEUED" for each in ids))
        first.stop()
        ended = [each for each in ids if job_store.read(each).state == "SUCCESS"]
        new_worker("w", other_checkpoint)
        for task_id in ids:
            result = job_store.with_result(final(job_store, task_id, timeout_s=120)).result
            fingerprint = result["model"]["fingerprint"]
            assert fingerprint == (old if task_id in ended else new)
            for number, item in enumerate(result["items"]):
                models.check(number, fingerprint, item["result"]["log_likelihood_nats"])
    assert len(ended) < len(ids)


def test_a_batch_has_one_model_though_its_model_is_replaced(
    web, models, new_worker, job_store, other_checkpoint
):
    old, new = models.add(TINY_CHECKPOINT), models.add(other_checkpoint)
    first = new_worker("first", TINY_CHECKPOINT, micro_batch_texts="2").wait_ready()
    wait_until(current(job_store, "mine", old))
    lines = [{"text": TEXTS[number % len(TEXTS)]} for number in range(NUM_ANSWERS)]
    body = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    with web.client() as http:

        def upload() -> str:
            sent = http.post(
                "/batches", content=body, headers={"Content-Type": "application/x-ndjson"}
            )
            assert sent.status_code == 202, sent.text
            return str(sent.json()["id"])

        begun, waiting = upload(), upload()
        wait_until(lambda: http.get(f"/batches/{begun}").json()["request_counts"]["completed"])
        first.stop()
        is_partial = http.get(f"/batches/{begun}").json()["completed_at"] is None
        new_worker("second", other_checkpoint).wait_ready()
        ended = [ended_batch(http, batch_id) for batch_id in (begun, waiting)]
        results = [
            http.get(f"/batches/{each}/results?limit=9999").content for each in (begun, waiting)
        ]

    assert is_partial, "the first batch had ended before its model was replaced"
    assert [batch["model"]["fingerprint"] for batch in ended] == [old, new]
    scored = 0
    for fingerprint, found in zip((old, new), results, strict=True):
        for line in map(orjson.loads, found.splitlines()):
            if line["status"] == "SUCCESS":
                nats = line["result"]["log_likelihood_nats"]
                models.check(line["index"] % len(TEXTS), fingerprint, nats)
                scored += 1
            else:
                assert line["error"]["type"] == "model_gone"
    assert ended[0]["request_counts"]["failed"] > 0
    assert ended[1]["request_counts"] == {"total": 1000, "completed": 1000, "failed": 0}
    assert scored == NUM_ANSWERS + ended[0]["request_counts"]["completed"]


def ended_batch(http: httpx.Client, batch_id: str) -> dict[str, Any]:
    def read() -> dict[str, Any] | None:
        reply: dict[str, Any] = http.get(f"/batches/{batch_id}").json()
        return reply if reply["completed_at"] else None

    return wait_until(read, timeout_s=180, every_s=0.2)
