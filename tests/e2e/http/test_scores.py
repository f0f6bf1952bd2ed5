"""Texts in, scores out: the whole service with a real model, as an HTTP client sees it."""

import math
import time

import httpx
import pytest

from app.responses.models import Info, JobView, Stats
from contract.messages import FINAL_STATES
from tests.conftest import HANG_S

PARAMETERS = {"wait": "30"}


@pytest.fixture(scope="module")
def http(scoring):
    with scoring.client() as client:
        yield client


def ended(http: httpx.Client, submitted: httpx.Response) -> dict:
    """The job of a submission once it has ended: on a busy machine, after more than one wait."""
    assert submitted.status_code in (200, 202), submitted.text
    path, job = submitted.headers["Location"], submitted.json()
    until = time.monotonic() + HANG_S
    while job["state"] not in FINAL_STATES:
        assert time.monotonic() < until
        job = http.get(path, params=PARAMETERS).json()
    JobView.model_validate(job)
    return job


def scored(http: httpx.Client, fields: dict) -> dict:
    job = ended(http, http.post("/score", params=PARAMETERS, json=fields))
    assert job["state"] == "SUCCESS", job
    return job["result"]


def post_text(http: httpx.Client, text: str, **options: str) -> dict:
    """The result of a raw body with `options` in the query."""
    headers = {"Content-Type": "text/plain"}
    params = {**PARAMETERS, **options}
    return ended(http, http.post("/score", params=params, content=text, headers=headers))["result"]


def test_text_gets_its_scores(http):
    result = scored(http, {"text": "naïve", "custom_id": "row-17"})
    assert (result["num_bytes"], result["num_chars"]) == (6, 5)
    bits = -result["log_likelihood_nats"] / math.log(2) / 6
    assert result["bits_per_byte"] == pytest.approx(bits)
    assert result["byte_perplexity"] == pytest.approx(2**bits)
    assert result["custom_id"] == "row-17"


def test_all_outputs_have_one_entry_per_byte(http):
    result = scored(
        http, {"text": "naïve", "outputs": ["bytes", "top_k", "curvature"], "top_k": 320}
    )
    assert sum(result["bytes"]["log_prob_nats"]) == pytest.approx(result["log_likelihood_nats"])
    assert {len(result["bytes"][name]) for name in result["bytes"]} == {6}
    assert [len(row) for row in result["top_k"]] == [320] * 6
    assert isinstance(result["curvature"], float)


def test_raw_bytes_score_like_the_same_text_in_json(http):
    text = "naïve\n"
    submitted = http.post(
        "/score",
        params={**PARAMETERS, "outputs": "bytes"},
        content=text.encode(),
        headers={"Content-Type": "application/octet-stream"},
    )
    raw = ended(http, submitted)["result"]
    assert raw["bytes"] == scored(http, {"text": text, "outputs": ["bytes"]})["bytes"]


def test_context_and_continuation_add_up_to_the_whole(http):
    whole = scored(http, {"text": "ab cd"})["log_likelihood_nats"]
    context = scored(http, {"text": "ab"})["log_likelihood_nats"]
    result = scored(http, {"context": "ab", "continuations": [" cd", " ce"]})
    assert len(result["continuations"]) == 2
    rest = result["continuations"][0]["log_likelihood_nats"]
    assert context + rest == pytest.approx(whole, abs=1e-4)


def test_items_come_back_in_order_each_with_its_own_result(http):
    items = [{"text": "x" * n, "custom_id": str(n)} for n in (1, 7, 64, 65)]
    result = scored(http, {"items": [*items, {"context": "a", "continuation": "b"}]})
    assert [item.get("custom_id") for item in result["items"]] == ["1", "7", "64", "65", None]
    assert [item["result"]["num_bytes"] for item in result["items"][:4]] == [1, 7, 64, 65]
    assert len(result["items"][4]["result"]["continuations"]) == 1


def test_text_beyond_the_loaded_model_is_refused_with_its_limit(http):
    """The tiny model's context is shorter than what the settings admit."""
    info = http.get("/info").json()
    limit = info["model"]["max_text_bytes"]
    assert info["limits"]["max_text_bytes"] == limit
    items = [{"text": "x"}, {"text": "x" * (limit + 1)}]
    response = http.post("/score", json={"items": items})
    problem = response.json()
    assert (response.status_code, problem["type"]) == (413, "text_too_large")
    assert (problem["limit_bytes"], problem["actual_bytes"]) == (limit, limit + 1)
    assert problem["errors"][0]["pointer"] == "/items/1/text"
    assert scored(http, {"text": "x" * limit})["num_bytes"] == limit


def test_spans_add_up_to_the_text(http):
    result = scored(http, {"text": "two words\n", "spans": "words"})
    assert [(span["start"], span["end"]) for span in result["spans"]] == [(0, 3), (3, 9), (9, 10)]
    total = sum(span["log_likelihood_nats"] for span in result["spans"])
    assert total == pytest.approx(result["log_likelihood_nats"], abs=1e-9)


def test_next_characters_come_with_the_score(http):
    items = [{"text": "", "next_chars": 3}, {"text": "naïv", "next_chars": 3}, {"text": "naïv"}]
    empty, asked, plain = (each["result"] for each in scored(http, {"items": items})["items"])
    assert (empty["num_bytes"], empty["bits_per_byte"]) == (0, None)
    assert asked["log_likelihood_nats"] == pytest.approx(plain["log_likelihood_nats"], abs=1e-4)
    for found in (empty["next_chars"], asked["next_chars"]):
        listed = [probability for _, probability in found["characters"]]
        assert len(listed) == 3
        rest = found["other"] + found["invalid"] + found["undecided"]
        assert sum(listed) + rest == pytest.approx(1)


def test_text_beyond_the_model_is_scored_in_windows(http):
    """Its windows go through several batches; each scores what it would score on its own."""
    text = "".join(chr(97 + number * number % 26) for number in range(11_000))
    result = post_text(http, text, window="2048,1024", spans="lines")
    windows = [(w["context_from"], w["start"], w["end"]) for w in result["windows"]]
    assert windows[:2] == [(0, 0, 2048), (1024, 2048, 3072)]
    assert windows[-1][2] == result["num_bytes"] == result["spans"][0]["num_bytes"] == 11_000
    assert result["usage"]["bytes"] > 16_384 > result["batch"]["bytes"]
    alone = [{"context": text[a:b], "continuation": text[b:c]} for a, b, c in windows]
    parts = [item["result"]["continuations"][0] for item in scored(http, {"items": alone})["items"]]
    total = sum(part["log_likelihood_nats"] for part in parts)
    assert result["log_likelihood_nats"] == pytest.approx(total, abs=1e-2)


def test_stride_that_the_model_cannot_use_is_refused_by_the_job(http):
    fields = {"text": "x", "window": {"size": 32, "stride": 31}}
    job = ended(http, http.post("/score", params=PARAMETERS, json=fields))
    assert (job["state"], job["error"]["type"]) == ("FAILURE", "invalid_request")


def test_info_and_stats_are_as_described(http):
    Info.model_validate(http.get("/info").json())
    Stats.model_validate(http.get("/stats").json())
    assert http.get("/readyz").status_code == 200
