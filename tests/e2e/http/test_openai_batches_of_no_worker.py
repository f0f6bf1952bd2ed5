"""Batches in OpenAI's form, as far as no worker is needed."""

import orjson
import pytest

WINDOW = {"endpoint": "/v1/completions", "completion_window": "24h"}


def line_for(model: str) -> bytes:
    """A line of a file that asks for `model`."""
    body = {"model": model, "prompt": "ab", "max_tokens": 0, "echo": True}
    return orjson.dumps(
        {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": body}
    )


def upload(http, content: bytes) -> str:
    """The ID of a new file."""
    sent = {"files": {"file": ("in.jsonl", content)}, "data": {"purpose": "batch"}}
    return http.post("/v1/files", **sent).json()["id"]


@pytest.mark.parametrize("model", ["nope", "m" * 110, "m" * 5000, "é", " ", "a/b/c", "a@b"])
def test_file_whose_first_line_names_no_model_is_refused(http, model):
    file_id = upload(http, line_for(model))
    answer = http.post("/v1/batches", json={"input_file_id": file_id, **WINDOW})
    assert (answer.status_code, answer.json()["type"]) == (404, "model_not_found")


def test_file_stays_until_the_results_of_its_batch_expire(http, web):
    file_id = upload(http, line_for("evascore"))
    uploaded = http.get(f"/v1/files/{file_id}").json()
    batch = http.post("/v1/batches", json={"input_file_id": file_id, **WINDOW}).json()
    kept = http.get(f"/v1/files/{file_id}").json()
    assert kept["expires_at"] > uploaded["expires_at"]
    assert abs(kept["expires_at"] - batch["expires_at"] - web.settings.result_ttl_s) <= 1


def test_native_batch_is_neither_shown_nor_cancelled(http):
    headers = {"Content-Type": "application/x-ndjson"}
    batch_id = http.post("/batches", content=b'{"text": "a"}', headers=headers).json()["id"]
    for method, path in (("GET", ""), ("POST", "/cancel")):
        refused = http.request(method, f"/v1/batches/{batch_id}{path}")
        assert refused.status_code == 404
        assert "read it at /batches" in refused.json()["detail"]
    assert http.get(f"/batches/{batch_id}").json()["cancelling_at"] is None
