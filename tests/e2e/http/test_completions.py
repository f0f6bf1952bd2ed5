"""The routes of lm-eval on the whole service with a real model."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from app.responses.completion_models import Completion
from tests.conftest import wait_until
from tests.service import Service

# On a busy machine too, a completion is scored in this time.
WAIT_S = 15
SCORED = {"max_tokens": 0, "echo": True, "logprobs": 1}
CONTINUED = {"max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    # Held for longer than a connection may stall. Eight requests of one client may wait.
    times = {"completion_wait_s": WAIT_S, "web_timeout_s": 8, "max_wait_s": 2}
    # A worker that is suspended for as long as that stays warm.
    service = Service(folder, **times, web_connections=32, lease_s=4 * WAIT_S).start()
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="module")
def http(service):
    with service.client() as client:
        yield client


def ids_of(text: str) -> list[int]:
    return [byte + 64 for byte in text.encode()]


def completed(http: httpx.Client, **fields) -> list[dict]:
    response = http.post("/v1/completions", json=fields)
    assert response.status_code == 200, response.text
    Completion.model_validate(response.json())
    return response.json()["choices"]


def score(http: httpx.Client, **fields) -> dict:
    path = http.post("/score", json=fields).headers["Location"]
    # On a busy machine, later than a request may wait.
    return wait_until(lambda: http.get(path, params={"wait": 2}).json().get("result"))


def test_prompt_has_the_log_likelihoods_of_its_score(http):
    (choice,) = completed(http, prompt="naïve <bos>", **SCORED)
    expected = score(http, text="naïve <bos>", outputs=["bytes"])["bytes"]["log_prob_nats"]
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(expected, abs=1e-5)
    assert choice["text"] == "naïve <bos>"


@pytest.mark.parametrize(
    "prompt",
    ["ab", ["ab"], ids_of("ab"), [ids_of("ab")], [1, *ids_of("ab")]],
    ids=["text", "texts", "ids", "lists", "begin-of-text"],
)
def test_forms_of_one_prompt_have_one_answer(http, prompt):
    (choice,) = completed(http, prompt=prompt, **CONTINUED)
    expected = score(http, text="ab", outputs=["bytes"])["bytes"]["log_prob_nats"]
    has_bos = prompt == [1, *ids_of("ab")]
    found = choice["logprobs"]["token_logprobs"][has_bos:]
    assert found[:2] == pytest.approx(expected, abs=1e-5)
    assert len(found) == 3


def test_id_that_follows_is_the_likeliest(http):
    prompts = ["", "ab", "é" * 70]
    choices = completed(http, prompt=prompts, **CONTINUED)
    for prompt, choice in zip(prompts, choices, strict=True):
        nats = choice["logprobs"]["token_logprobs"][-1]
        all_ids = {"outputs": ["top_k"], "top_k": 320}
        following = score(http, context=prompt, continuation="x", **all_ids)
        best = max(nats for _, nats in following["continuations"][0]["top_k"][0])
        assert nats == pytest.approx(best, abs=1e-5)


def test_prompts_sent_at_once_are_answered_each_with_its_own(http, service):
    def ask(number: int) -> list[dict]:
        with service.client() as client:
            prompts = [ids_of(chr(97 + number) * (n + 1)) for n in range(3)]
            return completed(client, prompt=prompts, **CONTINUED)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))
    for number, choices in enumerate(answers):
        texts = [chr(97 + number) * (n + 1) for n in range(3)]
        assert [c["text"][: len(t)] for c, t in zip(choices, texts, strict=True)] == texts


def test_nothing_of_an_answered_completion_is_kept(http, service):
    completed(http, prompt="gone", **CONTINUED)
    with service.redis() as client:
        kept = [key for key in client.keys("celery-task-meta-*") if b"cmpl" in client.get(key)]
        assert kept == []
        before = client.dbsize()
        completed(http, prompt="gone too", **CONTINUED)
        assert client.dbsize() == before


REFUSED = {
    "special-id": ({"prompt": [[64], [64, 1]], **SCORED}, 422, "/prompt/1"),
    "empty": ({"prompt": ["a", ""], **SCORED}, 422, "/prompt/1"),
    "only-begin-of-text": ({"prompt": [1], **SCORED}, 422, "/prompt"),
    "too-many": ({"prompt": ["a"] * 257, **SCORED}, 422, "/prompt"),
    "too-long": ({"prompt": "a" * 32_767, **CONTINUED}, 413, "/prompt"),
    "generation": ({"prompt": "a", "max_tokens": 16}, 422, "/max_tokens"),
}


@pytest.mark.parametrize(("fields", "status", "pointer"), REFUSED.values(), ids=REFUSED)
def test_refusal_is_a_problem_that_points_at_the_field(http, fields, status, pointer):
    response = http.post("/v1/completions", json=fields)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("model", ["gpt-4", "small@0123456789ab", "a b"])
def test_a_model_that_is_not_served_is_refused_with_those_that_are(http, model):
    response = http.post("/v1/completions", json={"prompt": "a", "model": model, **SCORED})
    assert (response.status_code, response.json()["type"]) == (404, "model_not_found")
    assert response.json()["served"] == ["small"]


@pytest.mark.parametrize("model", ["evascore", "small"])
def test_model_may_be_named(http, model):
    assert completed(http, prompt="a", model=model, **SCORED)


def test_prompt_beyond_the_model_is_refused_though_the_web_tier_admits_it(http):
    response = http.post("/v1/completions", json={"prompt": "a" * 5000, **SCORED})
    assert (response.status_code, response.json()["type"]) == (413, "text_too_large")


def test_completion_is_held_while_others_are_scored_and_refused_in_time(http, service):
    worker = service.part("worker")
    worker.suspend()
    try:
        began_at = time.monotonic()
        response = http.post("/v1/completions", json={"prompt": "a", **SCORED})
        assert (response.status_code, response.json()["type"]) == (503, "overloaded")
        assert int(response.headers["Retry-After"]) >= 1
        assert WAIT_S <= time.monotonic() - began_at < 2 * WAIT_S
    finally:
        worker.resume()
    assert completed(http, prompt="a", **SCORED)


def test_more_completions_than_the_share_of_a_client_are_refused_at_once(service):
    worker = service.part("worker")
    worker.suspend()

    def ask(_: int) -> tuple[int, float]:
        with service.client() as client:
            began_at = time.monotonic()
            response = client.post("/v1/completions", json={"prompt": "a", **SCORED})
            return response.status_code, time.monotonic() - began_at

    try:
        with ThreadPoolExecutor(11) as pool:
            answers = list(pool.map(ask, range(11)))
    finally:
        worker.resume()
    assert {status for status, _ in answers} == {503}
    assert sum(seconds < WAIT_S for _, seconds in answers) == 3


def test_tokens_of_a_text_and_back(http):
    body = {"prompt": "né", "add_special_tokens": False}
    assert http.post("/tokenize", json=body).json()["tokens"] == ids_of("né")
    assert http.post("/tokenize", json={"prompt": "né"}).json() == {
        "count": 4,
        "tokens": [1, *ids_of("né")],
    }
    bos = http.post("/tokenize", json={"prompt": "<bos>", "add_special_tokens": False}).json()
    assert bos["tokens"] == [1]
    text = http.post("/detokenize", json={"tokens": [1, *ids_of("né")]}).json()
    assert text == {"prompt": "<bos>né"}


def test_tokenizer_tells_its_special_tokens(http):
    info = http.get("/tokenizer_info").json()
    assert (info["bos_token"], info["eos_token"]) == ("<bos>", "<eos>")
    assert info["chat_template"] is None


@pytest.mark.parametrize(
    ("path", "fields"),
    [("/tokenize", {}), ("/tokenize", {"prompt": 5}), ("/detokenize", {"tokens": [320]})],
)
def test_wrong_tokenizer_request_is_refused(http, path, fields):
    assert http.post(path, json=fields).status_code == 422


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_tokenizer_refuses_a_body_that_would_hold_up_others(http, path):
    response = http.post(path, json={"prompt": "x" * 1024**2})
    assert (response.status_code, response.json()["limit_bytes"]) == (413, 1024**2)
    # The rest of the body is not read.
    assert response.headers["Connection"] == "close"


def test_body_must_be_json(http):
    response = http.post("/v1/completions", content="a", headers={"Content-Type": "text/plain"})
    assert response.status_code == 415
