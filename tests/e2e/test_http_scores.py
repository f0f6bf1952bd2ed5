"""Texts in, scores out: the whole service with a real model, as an HTTP client sees it."""

import math

import httpx
import pytest

from app.answers import Info, JobView, Stats
from tests.service import Service

PARAMETERS = {"wait": "30"}


@pytest.fixture(scope="module")
def http(tmp_path_factory):
    service = Service(tmp_path_factory.mktemp("service")).start()
    with service.client() as client:
        yield client
    assert service.stop() == 0


def scored(http: httpx.Client, fields: dict) -> dict:
    response = http.post("/score", params=PARAMETERS, json=fields)
    assert response.status_code == 200, response.text
    JobView.model_validate(response.json())
    assert response.json()["state"] == "SUCCESS", response.text
    return response.json()["result"]


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
    raw = http.post(
        "/score",
        params={**PARAMETERS, "outputs": "bytes"},
        content=text.encode(),
        headers={"Content-Type": "application/octet-stream"},
    ).json()["result"]
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


def test_text_beyond_the_model_fails_alone_and_says_so(http):
    """The tiny model's context is shorter than what the web tier admits."""
    limit = http.get("/info").json()["model"]["max_text_bytes"]
    result = scored(http, {"items": [{"text": "x"}, {"text": "x" * (limit + 1)}]})
    assert "result" in result["items"][0]
    assert result["items"][1]["error"]["type"] == "text_too_large"


def test_info_and_stats_are_as_described(http):
    Info.model_validate(http.get("/info").json())
    Stats.model_validate(http.get("/stats").json())
    assert http.get("/readyz").status_code == 200
