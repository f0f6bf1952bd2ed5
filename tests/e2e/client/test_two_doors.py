"""The command line and the service take and refuse the same lines, with the same results."""

import io
import json
from typing import Any

import pytest

from app.requests.models import ScoreBody
from contract.grammar.line_fields import Columns
from contract.grammar.text_request import REQUEST_OPTIONS, TextRequest
from model import Scorer
from model.commands.score_lines import score_lines
from tests.conftest import wait_until
from tests.service import TINY_CHECKPOINT

LINES = [
    b'{"text": "x"}',
    b'{"custom_id": "a", "text": "x"}',
    b'{"custom_id": 7, "text": "x"}',
    b'{"custom_id": "", "text": "x"}',
    b'{"custom_id": null, "text": "x"}',
    b'{"custom_id": "%s", "text": "x"}' % (b"i" * 128),
    b'{"custom_id": "%s", "text": "x"}' % (b"i" * 129),
    b'{"custom_id": "\\ud83d", "text": "x"}',
    b'{"text": "a", "text": "b"}',
    b'{"text": "x", "top_k": 3}',
    b'{"text": "x", "top_k": 5.0}',
    b'{"text": "x", "top_k": 5.5}',
    b'{"text": "x", "top_k": true}',
    b'{"text": "x", "top_k": 0}',
    b'{"text": "x", "top_k": 321}',
    b'{"text": "x", "top_k": 1e400}',
    b'{"text": "x", "top_k": -0.0}',
    b'{"text": "x", "outputs": null}',
    b'{"text": "x", "outputs": []}',
    b'{"text": "x", "outputs": "bytes"}',
    b'{"text": "x", "outputs": ["bytes", "bytes"]}',
    b'{"text": "x", "outputs": ["bytes", "bytes", "bytes", "bytes", "bytes"]}',
    b'{"text": "x", "outputs": ["summary", "bytes", "top_k", "curvature"]}',
    b'{"text": "x", "spans": [[0, 1.0]]}',
    b'{"text": "x", "spans": [[1, 0]]}',
    b'{"text": "x", "spans": [[-1, 1]]}',
    b'{"text": "x", "spans": [[0, 99999999999999999999]]}',
    b'{"text": "x", "spans": "Words"}',
    b'{"text": "x y", "spans": "words"}',
    b'{"text": "x", "spans": null, "window": null, "next_chars": null}',
    b'{"text": "x", "next_chars": 2.0}',
    b'{"text": "x", "next_chars": 101}',
    b'{"text": "", "next_chars": 1}',
    b'{"text": ""}',
    b'{"text": "x", "window": {"size": 10, "stride": 256}}',
    b'{"text": "x", "window": {"size": 32.0, "stride": 32}}',
    b'{"text": "x", "window": {"size": 32, "stride": 7}}',
    b'{"text": "x", "window": {"size": 256}}',
    b'{"text": "%s", "window": {"size": 64, "stride": 32}}' % (b"xy " * 100),
    b'{"text": "%s"}' % (b"x" * 512),
    b'{"text": "%s"}' % (b"x" * 40_000),
    b'{"custom_id": "o", "method": "POST", "url": "/v1/completions", "body": '
    b'{"model": "evascore", "prompt": "a b", "max_tokens": 0, "echo": true, "logprobs": 2}}',
    b'{"custom_id": "o", "url": "/v1/completions", "body": '
    b'{"prompt": [[161, 162]], "max_tokens": 0, "echo": true, "user": "u"}}',
    b'{"url": "/v1/completions", "body": {"prompt": "a", "max_tokens": 1, "temperature": 0}}',
    b'{"url": "/v1/completions", "body": {"prompt": ["a", "b"], "max_tokens": 0, "echo": true}}',
    b'{"url": "/v1/completions", "body": {"prompt": "", "max_tokens": 0, "echo": true}}',
    b'{"url": "/v1/completions", "body": {"prompt": "a", "max_tokens": 16}}',
    b'{"url": "/v1/completions", "body": {"prompt": [2], "max_tokens": 0, "echo": true}}',
    b'{"url": "/v1/chat/completions", "body": {"messages": []}}',
    b'{"url": "/v1/completions", "body": "a", "method": "GET", "text": "x"}',
    b'{"url": "/v1/completions", "body": []}',
    b'{"text_b64": "YQ=="}',
    b'{"text_b64": "YQ"}',
    b'{"text_b64": "Y Q=="}',
    b'{"text": null, "text_b64": "YQ=="}',
    b'{"text": "x", "text_b64": "YQ=="}',
    b'{"context": "a", "text": "b"}',
    b'{"context": "a", "continuation": ""}',
    b'{"context": "", "continuations": []}',
    b'{"context": null, "continuation": "b"}',
    b'{"context": "ab", "continuations": ["c", "de"]}',
    b'{"continuations": [%s]}' % b", ".join([b'"x"'] * 257),
    b'{"text": "x", "meta": 1}',
    b'{"text": "x", "deadline_s": 5}',
    b'{"text": "x", "priority": "bulk"}',
    b'{"items": [{"text": "x"}]}',
    b'\xef\xbb\xbf{"text": "x"}',
    b'{"text": "x"}\xc2\xa0',
    b'{"text": "x"}\x0c',
    b'\x0b{"text": "x"}',
    b' \t{"text": "x"} \r',
    b'{"text": "\\ud83d"}',
    b'{"text": "caf\xe9"}',
    b'{"text": "\\u0000"}',
    b'"text"',
    b"[]",
    b"null",
    b"nonsense",
    b'{"text": "x"} {"text": "y"}',
    b"{" * 2000,
]


@pytest.fixture(scope="module")
def offline() -> list[dict]:
    """What `python -m model score` writes."""
    target = io.BytesIO()
    score_lines(io.BytesIO(b"\n".join(LINES)), target, Scorer.load(str(TINY_CHECKPOINT)))
    return [json.loads(line) for line in target.getvalue().splitlines()]


@pytest.fixture(scope="module")
def uploaded(scoring) -> list[dict]:
    """The results of one upload."""
    with scoring.client() as client:
        posted = client.post(
            "/batches",
            params={"on_error": "skip"},
            content=b"\n".join(LINES),
            headers={"Content-Type": "application/x-ndjson"},
        )
        path = posted.raise_for_status().headers["Location"]
        wait_until(lambda: client.get(path).json()["status"] == "completed")
        return [json.loads(line) for line in client.get(f"{path}/results").text.splitlines()]


ROWS = [
    b'{"content": "one", "id": 7, "meta": {"set": "s"}}',
    b'{"content": "two", "id": "x1", "outputs": "columns are not options"}',
    b'{"content": "", "id": "x2"}',
    b'{"content": null, "id": "x3"}',
    b'{"content": ["a"], "id": "x4"}',
    b'{"text": "a", "id": "x5"}',
    b'{"content": "no id"}',
    b'{"content": "a", "id": null}',
    b'{"content": "a", "id": true}',
    b'{"content": "a", "id": 1.5}',
    b'{"content": "a", "id": "%s"}' % (b"i" * 129),
    b'{"content": "a", "content": "b", "id": "x6"}',
    b"nonsense",
]


def test_rows_with_columns_of_their_own_are_read_alike(scoring):
    target = io.BytesIO()
    columns = Columns(text_field="content", id_field="id")
    scorer = Scorer.load(str(TINY_CHECKPOINT))
    score_lines(io.BytesIO(b"\n".join(ROWS)), target, scorer, columns=columns)
    offline = [outcome_of(json.loads(line)) for line in target.getvalue().splitlines()]
    with scoring.client() as client:
        posted = client.post(
            "/batches",
            params={"on_error": "skip", "text_field": "content", "id_field": "id"},
            content=b"\n".join(ROWS),
            headers={"Content-Type": "application/x-ndjson"},
        )
        path = posted.raise_for_status().headers["Location"]
        wait_until(lambda: client.get(path).json()["status"] == "completed")
        lines = client.get(f"{path}/results").text.splitlines()
    assert [outcome_of(json.loads(line)) for line in lines] == offline
    assert [line["custom_id"] for line in offline[:6]] == ["7", "x1", "x2", "x3", "x4", "x5"]
    assert [line["code"] for line in offline] == [
        *(None, None, "empty_text"),
        *["invalid_request"] * 8,
        *["malformed_body"] * 2,
    ]


def outcome_of(answer: dict) -> dict:
    """What both doors say about a line: its ID, its result, or what is wrong and where."""
    error = answer.get("error")
    return {
        "custom_id": answer.get("custom_id"),
        "result": answer.get("result"),
        "code": error and error.get("code", error.get("type")),
        "message": error and error.get("message", error.get("detail")),
        "errors": error and error.get("errors"),
    }


def flattened(value: Any, path: str = "") -> tuple[list[float], list[str]]:
    """The floats in a JSON value, and all the rest of it, in order."""
    if isinstance(value, float):
        return [value], [path]
    if not isinstance(value, dict | list):
        return [], [f"{path}: {value!r}"]
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    pairs = [flattened(each, f"{path}/{name}") for name, each in inner]
    return [n for numbers, _ in pairs for n in numbers], [s for _, shape in pairs for s in shape]


@pytest.mark.parametrize("number", range(len(LINES)), ids=lambda n: repr(LINES[n][:60]))
def test_upload_gives_what_the_command_gives(number, offline, uploaded):
    assert len(offline) == len(uploaded) == len(LINES)
    assert outcome_of(uploaded[number]) == outcome_of(offline[number])


@pytest.mark.parametrize(
    "number",
    [
        n
        for n, line in enumerate(LINES)
        # A line of an OpenAI batch is not a request of its own.
        if not any(b'"%s"' % o.encode() in line for o in (*REQUEST_OPTIONS, "body"))
    ],
    ids=lambda n: repr(LINES[n][:60]),
)
def test_post_gives_what_the_command_gives(number, offline, scoring):
    with scoring.client() as client:
        answer = client.post(
            "/score?wait=30", content=LINES[number], headers={"Content-Type": "application/json"}
        )
    expected = offline[number]
    if "error" in expected:
        problem = answer.json() if answer.status_code >= 400 else answer.json()["error"]
        assert problem["type"] == expected["error"]["code"]
    else:
        scores = answer.json()["result"]
        numbers, shape = flattened({name: scores[name] for name in expected["result"]})
        expected_numbers, expected_shape = flattened(expected["result"])
        assert shape == expected_shape
        # Company moves the last digits of continuations and next characters (docs/numerics.md).
        assert numbers == pytest.approx(expected_numbers, rel=1e-4, abs=1e-6)


def test_fields_of_a_request_are_those_of_a_text_and_its_own_options():
    assert set(ScoreBody.model_fields) == {*TextRequest.model_fields, *REQUEST_OPTIONS}
