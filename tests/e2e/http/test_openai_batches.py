"""The stock openai package uploads a file, makes a batch of it, polls it and downloads results."""

import json

import openai
import pytest

from app.factory import create_app
from app.service.components import EXTENSION
from contract import keys
from contract.settings import REPOSITORY, load_settings
from tests.conftest import wait_until

SCORED = {"model": "evascore", "max_tokens": 0, "echo": True, "logprobs": 2}
CONTINUED = {"model": "evascore", "max_tokens": 1, "temperature": 0, "logprobs": 1}


def line_of(number: int, prompt, **options) -> dict:
    return {
        "custom_id": f"line-{number}",
        "method": "POST",
        "url": "/v1/completions",
        "body": {"prompt": prompt, **options},
    }


LINES = [
    line_of(0, "one two", **SCORED),
    line_of(1, "naïve 🚀", **SCORED),
    line_of(2, "", **SCORED),
    line_of(3, "ab", **CONTINUED),
    line_of(4, [[1, 161, 162]], **SCORED, user="u"),
    line_of(5, "a", model="another", max_tokens=0, echo=True),
    line_of(6, "a", max_tokens=5),
]


@pytest.fixture(scope="module")
def api(scoring):
    with openai.OpenAI(base_url=f"{scoring.url}/v1", api_key="none", max_retries=0) as client:
        wait_until(lambda: client.models.list().data)
        yield client


def upload(api: openai.OpenAI, lines: list[dict]) -> openai.types.FileObject:
    content = "\n\n".join(map(json.dumps, lines)).encode()
    return api.files.create(file=("in.jsonl", content), purpose="batch")


def begin(api: openai.OpenAI, file_id: str, **more) -> openai.types.Batch:
    return api.batches.create(
        input_file_id=file_id, endpoint="/v1/completions", completion_window="24h", **more
    )


def ended(api: openai.OpenAI, batch: openai.types.Batch) -> openai.types.Batch:
    wait_until(lambda: api.batches.retrieve(batch.id).completed_at, timeout_s=60)
    return api.batches.retrieve(batch.id)


def lines_of(api: openai.OpenAI, file_id: str) -> list[dict]:
    return [json.loads(line) for line in api.files.content(file_id).text.splitlines()]


def test_batch_gives_the_completions_of_its_lines(api):
    file = upload(api, LINES)
    assert (file.object, file.purpose, file.filename) == ("file", "batch", "in.jsonl")
    assert api.files.retrieve(file.id) == file
    batch = ended(api, begin(api, file.id, metadata={"run": "1"}))
    assert (batch.status, batch.metadata, batch.input_file_id) == (
        "completed",
        {"run": "1"},
        file.id,
    )
    assert (batch.request_counts.completed, batch.request_counts.failed) == (4, 3)
    answers = lines_of(api, batch.output_file_id)
    assert [answer["custom_id"] for answer in answers] == ["line-0", "line-1", "line-3", "line-4"]
    for answer in answers:
        number = int(answer["custom_id"].removeprefix("line-"))
        direct = api.completions.create(**LINES[number]["body"])
        body, expected = answer["response"]["body"], direct.to_dict()
        assert answer["response"]["status_code"] == 200
        assert body.keys() == expected.keys()
        assert (body["model"], body["usage"]) == (expected["model"], expected["usage"])
        mine, theirs = body["choices"][0], expected["choices"][0]
        assert mine["text"] == theirs["text"]
        assert mine["logprobs"]["tokens"] == theirs["logprobs"]["tokens"]
        pairs = zip(
            mine["logprobs"]["token_logprobs"], theirs["logprobs"]["token_logprobs"], strict=True
        )
        for one, other in pairs:
            assert one == (other if other is None else pytest.approx(other, abs=1e-4))


def test_errors_of_lines_are_a_file_of_their_own(api):
    batch = ended(api, begin(api, upload(api, LINES).id))
    errors = lines_of(api, batch.error_file_id)
    assert [each["custom_id"] for each in errors] == ["line-2", "line-5", "line-6"]
    problems = [each["response"]["body"]["error"] for each in errors]
    assert [each["type"] for each in problems] == ["empty_text", *["invalid_request"] * 2]
    assert [each["errors"][0]["pointer"] for each in problems] == [
        "/body/prompt",
        "/body/model",
        "/body/max_tokens",
    ]


def test_batch_without_errors_has_no_file_of_errors(api):
    batch = ended(api, begin(api, upload(api, LINES[:2]).id))
    assert batch.error_file_id is None
    facts = api.files.retrieve(batch.output_file_id)
    assert (facts.purpose, facts.filename) == ("batch_output", "output.jsonl")


def test_uploaded_file_comes_back_as_it_was_until_it_is_deleted(api):
    content = "".join(json.dumps(line_of(n, "é" * 500, **SCORED)) + "\r\n" for n in range(900))
    file = api.files.create(file=content.encode(), purpose="batch")
    assert (file.bytes, api.files.content(file.id).content) == (len(content), content.encode())
    assert api.files.delete(file.id).deleted
    with pytest.raises(openai.APIStatusError) as gone:
        api.files.retrieve(file.id)
    assert gone.value.status_code == 410
    with pytest.raises(openai.APIStatusError) as gone:
        begin(api, file.id)
    assert gone.value.status_code == 410


def test_completions_can_be_read_after_the_limit_of_a_text_became_smaller(api, scoring):
    batch = ended(api, begin(api, upload(api, LINES[:2]).id))
    settings = load_settings(scoring.environment()).model_copy(update={"max_text_bytes": 2})
    app = create_app(settings)
    answer = app.test_client().get(f"/v1/files/{batch.output_file_id}/content")
    app.extensions[EXTENSION].changes.close()
    assert answer.get_data() == api.files.content(batch.output_file_id).content


def test_completions_cannot_be_read_without_their_prompts_but_errors_can(api):
    file = upload(api, LINES[1:3])
    batch = ended(api, begin(api, file.id))
    api.files.delete(file.id)
    assert [each["custom_id"] for each in lines_of(api, batch.error_file_id)] == ["line-2"]
    with pytest.raises(openai.APIStatusError) as gone:
        lines_of(api, batch.output_file_id)
    assert gone.value.status_code == 410
    assert "still has the scores" in gone.value.body["detail"]


def test_batch_can_be_cancelled_and_then_tells_so(api, scoring):
    worker = scoring.part("worker")
    worker.suspend()
    try:
        batch = begin(api, upload(api, LINES[:2]).id)
        with pytest.raises(openai.NotFoundError):
            api.files.retrieve(f"output-{batch.id}")
        cancelled = api.batches.cancel(batch.id)
    finally:
        worker.resume()
    assert cancelled.status == "cancelled"
    (first, _) = lines_of(api, cancelled.error_file_id)
    assert (first["response"], first["error"]["code"]) == (None, "batch_cancelled")


def test_repeated_request_is_the_batch_of_the_first_one_until_that_is_erased(api, scoring):
    file = upload(api, LINES[:1])
    key = {"extra_headers": {"Idempotency-Key": "openai-1"}}
    first = begin(api, file.id, metadata={"run": "1"}, **key)
    again = begin(api, file.id, metadata={"run": "2"}, **key)
    assert (again.id, again.metadata) == (first.id, {"run": "1"})
    with scoring.client() as client:
        assert client.delete(f"/batches/{first.id}").status_code == 204
    with pytest.raises(openai.APIStatusError) as gone:
        begin(api, file.id, metadata={"run": "3"}, **key)
    assert gone.value.status_code == 410
    assert "send it with a new key" in gone.value.body["detail"]
    with scoring.redis() as redis:
        assert not redis.exists(keys.batch(first.id))


@pytest.mark.parametrize(
    ("send", "status"),
    [
        (lambda api: api.files.create(file=b"{}", purpose="fine-tune"), 422),
        (lambda api: api.files.create(file=b"", purpose="batch"), 422),
        (lambda api: api.files.retrieve("never"), 404),
        (lambda api: api.batches.retrieve("never"), 404),
        (lambda api: begin(api, "never"), 404),
        (lambda api: begin(api, api.files.create(file=b"\n", purpose="batch").id), 422),
        (
            lambda api: api.batches.create(
                input_file_id="x", endpoint="/v1/embeddings", completion_window="24h"
            ),
            422,
        ),
    ],
    ids=["purpose", "empty", "file", "batch", "input", "blank", "endpoint"],
)
def test_what_is_wrong_is_refused(api, send, status):
    with pytest.raises(openai.APIStatusError) as refused:
        send(api)
    assert refused.value.status_code == status
    assert refused.value.body["type"]


def test_native_batch_is_none_of_openai(api, scoring):
    with scoring.client() as client:
        batch_id = client.post(
            "/batches",
            content=b'{"text": "a"}',
            headers={"Content-Type": "application/x-ndjson"},
        ).json()["id"]
    with pytest.raises(openai.NotFoundError) as refused:
        api.batches.retrieve(batch_id)
    assert "read it at /batches" in refused.value.body["detail"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"--b\r\nContent-Disposition: form-data; name=purpose\r\n\r\nbatch\r\n", 400),
        (b"--b\r\nContent-Disposition: form-data; name=other\r\n\r\nx\r\n--b--\r\n", 422),
        (b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\nx\r\n" * 2 + b"--b--\r\n", 422),
        (b"no boundary" * 50_000, 400),
    ],
)
def test_form_that_is_broken_is_refused(scoring, body, status):
    with scoring.client() as client:
        answer = client.post(
            "/v1/files", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
        )
        assert answer.status_code == status
        assert client.post("/v1/files", json={}).status_code == 415


def test_what_was_received_of_a_refused_file_is_deleted(api, scoring):
    with scoring.redis() as redis:
        before = set(redis.keys("evascore:file:*"))
        with pytest.raises(openai.UnprocessableEntityError):
            api.files.create(file=b"x" * 600_000, purpose="fine-tune")
        assert set(redis.keys("evascore:file:*")) == before


def test_openai_package_is_a_requirement_of_the_tests():
    assert f"openai=={openai.__version__}" in (REPOSITORY / "requirements-dev.txt").read_text()
