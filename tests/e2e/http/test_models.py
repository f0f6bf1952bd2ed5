"""Requests choose a model; the tests pose as its workers."""

import pytest
from jsonschema import Draft202012Validator

from app.responses.models import ModelList
from contract import keys
from tests.waiting_messages import clear

OLD, NEW, OTHER = "0" * 12, "1" * 12, "2" * 12
FACTS = {
    **{"revision": "ab" * 8, "quantization": "none", "dtype": "float32", "is_demo": False},
    **{"max_text_bytes": 1000, "window_size": 16},
}
NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(autouse=True)
def two_models(outcomes):
    """Workers of two models; one of them has replaced another that still has a worker."""
    for worker, name, fingerprint in (
        ("a", "demo", OLD),
        ("b", "demo", NEW),
        ("c", "owner/other", OTHER),
    ):
        outcomes.store.models.make_current(name, fingerprint)
        outcomes.pose_as_worker(
            {"name": worker, "model": {"name": name, "fingerprint": fingerprint, **FACTS}}
        )
    outcomes.client.delete(keys.LIVE_CLIENTS)
    clear(outcomes.client)


def bound(outcomes, task_id: str) -> tuple[str, str, bool]:
    facts = outcomes.store.read(task_id).job
    return facts["model"], facts["fingerprint"], facts["is_pinned"]


ASKED = {
    "default": (None, ("demo", NEW, False)),
    "alias": ("evascore", ("demo", NEW, False)),
    "name": ("owner/other", ("owner/other", OTHER, False)),
    "exact": (f"demo@{OLD}", ("demo", OLD, True)),
}


@pytest.mark.parametrize(("asked", "expected"), ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("form", ["json", "query", "text"])
def test_a_job_is_bound_to_the_model_of_its_request(http, outcomes, form, asked, expected):
    params = {"model": asked} if asked and form != "json" else {}
    body = {"text": "a", **({"model": asked} if asked and form == "json" else {})}
    if form == "text":
        headers = {"Content-Type": "text/plain"}
        response = http.post("/score", params=params, content=b"a", headers=headers)
    else:
        response = http.post("/score", params=params, json=body)

    assert response.status_code == 202, response.text
    assert bound(outcomes, response.json()["id"]) == expected
    assert outcomes.client.exists(keys.turns(expected[1], keys.INTERACTIVE))


@pytest.mark.parametrize(("asked", "expected"), ASKED.values(), ids=ASKED)
def test_a_batch_is_bound_to_the_model_of_its_upload(http, outcomes, asked, expected):
    params = {"model": asked} if asked else {}
    response = http.post("/batches", params=params, content=b'{"text": "a"}\n', headers=NDJSON)

    assert response.status_code == 202, response.text
    found = outcomes.client.hmget(
        keys.batch(response.json()["id"]), "model_name", "fingerprint", "is_pinned"
    )
    name, fingerprint, is_pinned = expected
    assert [each.decode() for each in found] == [name, fingerprint, str(int(is_pinned))]


@pytest.mark.parametrize("asked", ["nobodys", f"demo@{OTHER}", f"other@{OLD}", "My secret"])
@pytest.mark.parametrize("route", ["/score", "/batches", "/v1/completions", "/tokenize", "query"])
def test_a_model_that_is_not_served_is_a_404_in_every_route(http, route, asked):
    completion = {"prompt": "a", "max_tokens": 0, "echo": True, "model": asked}
    response = {
        "/score": lambda: http.post(route, json={"text": "a", "model": asked}),
        "query": lambda: http.post("/score", params={"model": asked}, json={"text": "a"}),
        "/batches": lambda: http.post(
            route, params={"model": asked}, content=b"no line is read", headers=NDJSON
        ),
        "/v1/completions": lambda: http.post(route, json=completion),
        "/tokenize": lambda: http.post(route, json={"prompt": "a", "model": asked}),
    }[route]()

    problem = response.json()
    assert (response.status_code, problem["type"]) == (404, "model_not_found")
    assert problem["served"] == ["demo", f"demo@{OLD}", "owner/other"]
    assert "secret" not in response.text


@pytest.mark.parametrize("place", ["line", "item"])
def test_a_single_text_names_no_model(http, place):
    text = {"text": "a", "model": "demo"}
    if place == "item":
        response = http.post("/score", json={"items": [text]})
    else:
        response = http.post("/batches", content=b'{"text": "a", "model": "demo"}', headers=NDJSON)

    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["pointer"].endswith("/model")
    assert "whole request" in error["detail"]


def test_models_are_listed_as_openai_lists_them(http):
    reply = http.get("/v1/models").json()

    ModelList.model_validate(reply)
    listed = [
        (each["id"], each["fingerprint"], each["is_default"], each["workers"])
        for each in reply["data"]
    ]
    assert listed == [
        ("demo", NEW, True, 1),
        (f"demo@{OLD}", OLD, False, 1),
        ("owner/other", OTHER, False, 1),
    ]
    info = http.get("/info").json()
    assert info["models"] == reply["data"]
    assert info["model"]["fingerprint"] == NEW


def test_description_names_what_can_be_asked_for(http):
    document = http.get("/openapi.json").json()
    asked = document["components"]["schemas"]["ScoreBody"]["properties"]["model"]
    described = Draft202012Validator(asked).is_valid
    # The current model of a name has an exact name, too.
    for name in (None, "evascore", "demo", f"demo@{OLD}", f"demo@{NEW}", "owner/other"):
        assert described(name)
        fields = {"text": "a", **({"model": name} if name else {})}
        assert http.post("/score", json=fields).status_code == 202
    assert not described("unknown")
    assert http.post("/score", json={"text": "a", "model": "unknown"}).status_code == 404


def test_a_replayed_request_is_the_job_of_its_first_model(http, outcomes):
    headers = {"Idempotency-Key": "k"}
    first = http.post("/score", json={"text": "a"}, headers=headers).json()
    outcomes.store.models.make_current("demo", OTHER)
    again = http.post("/score", json={"text": "a"}, headers=headers)

    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json()["id"] == first["id"]
    asked = http.post("/score", json={"text": "a", "model": "demo"}, headers=headers)
    assert asked.json()["type"] == "idempotency_key_reused"


def test_what_waits_is_reported_for_each_model(http):
    for asked in (None, "owner/other", "owner/other"):
        http.post("/score", json={"text": "a", **({"model": asked} if asked else {})})

    waiting = {
        (each["name"], each["fingerprint"]): each["interactive"]
        for each in http.get("/stats").json()["queue"]["models"]
    }
    assert waiting == {("demo", NEW): 1, ("owner/other", OTHER): 2}
    metrics = http.get("/metrics").text
    labels = f'fingerprint="{OTHER}",model="owner/other",priority="interactive"'
    assert f"evascore_waiting_messages{{{labels}}} 2.0" in metrics


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_large_body_for_a_model_that_is_not_served_harms_no_later_request(http, path):
    # Its parse runs in a thread that must not use the connections to Redis of all requests.
    fields = {"prompt": "x" * 300_000} if path == "/tokenize" else {"tokens": [164] * 100_000}
    for _ in range(3):
        assert http.post("/score", json={"text": "x"}).status_code == 202
        response = http.post(path, json={**fields, "model": "nobody"})
        assert (response.status_code, response.json()["type"]) == (404, "model_not_found")
    for _ in range(10):
        assert http.post("/score", json={"text": "x"}).status_code == 202
        assert http.get("/stats").status_code == 200
