"""Answers that nobody reads leave no room: a large one is refused before it is scored."""

import pytest

from app.factory import create_app
from contract.settings import load_settings

SCORED = {"max_tokens": 0, "echo": True}
LARGE = {**SCORED, "prompt": ["x" * 30_000] * 3}


@pytest.fixture
def http(redis_server):
    """A web server whose clients leave no room for answers."""
    app = create_app(load_settings({"EVASCORE_REDIS_URL": redis_server.url}))
    service = app.extensions["evascore"]
    for client in ("one", "another"):
        service.answers.take(client, service.answers.share_bytes)
    yield app.test_client()
    service.changes.close()


def test_description_of_the_routes_needs_no_room(http):
    answer = http.get("/openapi.json")
    # A smaller answer would show nothing.
    assert len(answer.data) > 64 * 1024
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/tokenize", {"prompt": "x" * 100_000}, "overloaded"),
        # No worker is there, so what is not refused first is refused for that.
        ("/v1/completions", LARGE, "overloaded"),
        ("/v1/completions", {**LARGE, "prompt": "x" * 3000, "logprobs": 5}, "overloaded"),
        ("/v1/completions", {**LARGE, "prompt": "x" * 500}, "worker_unavailable"),
    ],
)
def test_request_for_a_large_answer_is_refused_before_it_is_scored(http, path, body, code):
    answer = http.post(path, json=body)
    assert (answer.status_code, answer.json["type"]) == (503, code)
