"""The size of a result is bounded from the request alone, and not far above what it comes to."""

import base64
import random
import string

import orjson
import pytest

from app.requests.intake import to_job
from contract import keys
from contract.grammar.result_size import result_bytes
from contract.settings import load_settings
from contract.store.jobs.endings import Ending
from contract.stored_results import encode_success
from model.scorer import Scorer
from model.scoring.request import ScoreRequest
from tests.service import TINY_CHECKPOINT
from worker.scoring.micro_batch_scorer import MODEL_FIELDS

PROSE = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.\n" * 4
ASKED = {
    "bytes": {"text": PROSE, "outputs": ["bytes", "curvature"]},
    "top_k": {"text": PROSE, "outputs": ["top_k"], "top_k": 320},
    "words": {"text": PROSE, "spans": "words"},
    "words-of-bytes": {"text_b64": "IGEg" * 50, "spans": "words"},
    "lines": {"text": "\n" * 200, "spans": "lines"},
    "characters": {"text_b64": "/wD/" * 50, "spans": "characters"},
    "ranges": {"text": "a", "spans": [[0, 1]] * 200},
    "ranges-of-continuations": {"continuations": ["a", "b"] * 9, "spans": [[0, 1], [1, 1]] * 50},
    "next_chars": {"text": "a", "next_chars": 100},
    "window": {
        "text": PROSE * 2,
        "outputs": ["bytes"],
        "window": {"size": 192, "stride": 64},
    },
    "window-stride-over-size": {"text": PROSE * 8, "window": {"size": 64, "stride": 9999}},
    "continuations": {
        "context": PROSE,
        "continuations": ["a", "bc"] * 40,
        "outputs": ["bytes", "top_k"],
    },
}

RANDOM = random.Random(1)
NOISE = "".join(RANDOM.choice(string.printable) for _ in range(2000))
# What compresses worst: random text, random bytes, results just under and over `APART_BYTES`.
NEAR_THE_BOUND = {
    **ASKED,
    "everything": {"text": NOISE, "outputs": ["bytes", "top_k", "curvature"], "top_k": 320},
    "top_k-of-bytes": {
        "text_b64": base64.b64encode(RANDOM.randbytes(1000)).decode(),
        "outputs": ["bytes", "top_k"],
        "top_k": 320,
    },
    "top_1": {"text": NOISE, "outputs": ["top_k"], "top_k": 1},
    "bytes-of-noise": {"text": NOISE, "outputs": ["bytes"]},
    "characters-of-noise": {"text": NOISE, "spans": "characters"},
    "summary": {"text": "a"},
    "just-inline": {"text": NOISE[:150], "outputs": ["bytes"]},
    "just-apart": {"text": NOISE[:190], "outputs": ["bytes"]},
    "items": {"items": [{"text": NOISE[at : at + 9]} for at in range(0, 1800, 9)]},
    "named-items": {
        "items": [
            {
                "text": NOISE[at : at + 2],
                "custom_id": "".join(chr(RANDOM.randrange(0x10000, 0x30000)) for _ in range(128)),
            }
            for at in range(200)
        ]
    },
}
LIMITS = load_settings({})
REQUEST = {"now": 0.0, "request_id": ""}
# What a result shows besides scores.
CIRCUMSTANCES = {
    "model": dict.fromkeys(MODEL_FIELDS, "a name of a model"),
    "timings_ms": dict.fromkeys(("queue", "batch_wait", "compute", "total"), 12345.678),
    "batch": {"texts": 256, "bytes": 16384},
    "usage": {"bytes": 16384},
}


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.load(str(TINY_CHECKPOINT))


@pytest.mark.parametrize("fields", ASKED.values(), ids=ASKED)
def test_result_is_within_its_bound_and_near_it(scorer, fields):
    [request] = to_job(fields, load_settings({}), now=0.0, request_id="").requests
    [result] = scorer.score([ScoreRequest.from_json(request)])
    num_bytes = len(orjson.dumps(result))
    assert num_bytes < result_bytes(request) < 3 * num_bytes + 2048


def test_custom_id_of_control_characters_is_within_the_bound():
    custom_id = "\1" * 128
    fields = {"text": "a", "custom_id": custom_id}
    assert len(orjson.dumps({"index": 10**9, **fields})) + 384 < result_bytes(fields)


@pytest.mark.parametrize("fields", NEAR_THE_BOUND.values(), ids=NEAR_THE_BOUND)
def test_what_is_stored_of_a_job_is_within_its_promise(scorer, job_store, redis_client, fields):
    job = to_job(fields, LIMITS, **REQUEST)
    task_id = job_store.submit(job).task_id
    promised = int(redis_client.get(keys.LIVE_PROMISED))
    results = scorer.score([ScoreRequest.from_json(each) for each in job.requests])
    items = [
        {"custom_id": each.get("custom_id", ""), "result": result}
        for each, result in zip(job.requests, results, strict=True)
    ]
    result = results[0] if job.is_single else {"items": items}
    record, stored = encode_success(task_id, {**result, **CIRCUMSTANCES}, job.facts(), 1.0)
    job_store.conclude([Ending(task_id, record, stored_result=stored)])
    names = keys.record(task_id), keys.result(task_id)
    used = sum(redis_client.memory_usage(name) or 0 for name in names)
    assert used <= promised
    if fields is NEAR_THE_BOUND["everything"]:
        assert promised < 2 * used
