"""A line is read as our own fields, as a row of a corpus, or as a line of an OpenAI batch."""

import pytest

from contract.errors import ClientError, RequestInvalid
from contract.grammar.limits import DEFAULT_LIMITS
from contract.grammar.line_fields import (
    NO_COLUMNS,
    Columns,
    check_line,
    completion_of_line,
    id_of_line,
)

C4 = {"text": "one", "timestamp": "2019-04-25T12:57:54Z", "url": "http://example.org"}
PILE = {"text": "one", "meta": {"pile_set_name": "s"}}
DOLMA = {"id": "x1", "text": "one", "source": "s", "added": "2024", "metadata": {"text": "no"}}
NEWS = {"url": "https://example.org/a", "title": "t", "body": "one"}
BODY = {"model": "m", "prompt": "one two", "max_tokens": 0, "echo": True}


def request_of(fields, columns=NO_COLUMNS):
    return check_line(fields, DEFAULT_LIMITS, columns=columns).request


def errors_of(fields, columns=NO_COLUMNS, read=None):
    with pytest.raises(ClientError) as refused:
        (read or request_of)(fields, *([] if read else [columns]))
    return refused.value.details["errors"]


def of_openai(**body):
    return {"custom_id": "q", "method": "POST", "url": "/v1/completions", "body": {**BODY, **body}}


@pytest.mark.parametrize("row", [C4, PILE, DOLMA], ids=["C4", "The Pile", "Dolma"])
def test_other_columns_of_a_row_are_ignored(row):
    assert request_of(row, Columns("text")) == {"text": "one"}


def test_id_of_a_row_is_its_column():
    assert request_of(DOLMA, Columns("text", "id")) == {"custom_id": "x1", "text": "one"}
    assert request_of(DOLMA, Columns(id_field="id")) == {"custom_id": "x1", "text": "one"}
    assert request_of({"text": "a", "n": 5}, Columns("text", "n"))["custom_id"] == "5"


@pytest.mark.parametrize(("custom_id", "read"), [("c", "c"), (7, "7"), ("c" * 128, "c" * 128)])
@pytest.mark.parametrize("columns", [Columns("body"), Columns("body", "custom_id")])
def test_id_of_a_row_is_its_custom_id_where_no_other_column_is_named(columns, custom_id, read):
    row = {"body": "a", "custom_id": custom_id}
    assert request_of(row, columns) == {"custom_id": read, "text": "a"}
    assert id_of_line(row, columns) == read


@pytest.mark.parametrize("row", [{"text": "a"}, {"text": "a", "custom_id": None}])
def test_row_needs_no_id_where_no_column_of_it_is_named(row):
    assert request_of(row, Columns("text")) == {"text": "a"}


@pytest.mark.parametrize("custom_id", ["", "c" * 129, 1.5, True, ["c"]])
def test_row_whose_custom_id_is_no_id_is_refused_and_not_scored_without(custom_id):
    (error,) = errors_of({"text": "a", "custom_id": custom_id}, Columns("text"))
    assert error["pointer"] == "/custom_id"


@pytest.mark.parametrize("row", [C4, PILE, DOLMA, NEWS], ids=["C4", "Pile", "Dolma", "news"])
def test_row_without_named_columns_is_refused_with_what_to_do(row):
    first, *others = errors_of(row)
    hint = "name the one of the text: text_field (--text-field"
    assert hint in first["detail"]
    assert not any(hint in each["detail"] for each in others)


def test_other_errors_of_a_line_have_no_hint_of_columns():
    (error,) = errors_of({"text": 5})
    assert error == {"detail": "must be a string", "pointer": "/text"}


def test_row_without_its_text_is_refused_at_the_column():
    (error,) = errors_of({"body": None}, Columns("body"))
    assert error["pointer"] == "/body"


def test_line_of_an_openai_batch_is_a_text_to_score():
    assert request_of(of_openai()) == {"custom_id": "q", "text_b64": "b25lIHR3bw=="}
    asked = request_of(of_openai(logprobs=3))
    assert (asked["outputs"], asked["top_k"]) == (["bytes", "top_k"], 3)
    assert request_of(of_openai(logprobs=0))["outputs"] == ["bytes"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        (of_openai(stop=["x"]), "/body/stop"),
        (of_openai(prompt=5), "/body/prompt"),
        (of_openai(prompt=""), "/body/prompt"),
        (of_openai(max_tokens=1, temperature=0), "/body/max_tokens"),
        (of_openai(max_tokens=5), "/body/max_tokens"),
        ({**of_openai(), "url": "/v1/embeddings"}, "/url"),
        ({**of_openai(), "method": "GET"}, "/method"),
        ({**of_openai(), "url": "https://example.org/v1/completions"}, "/url"),
        ({**of_openai(), "body": []}, "/body"),
    ],
)
def test_openai_line_is_refused_at_the_field_that_is_wrong(fields, pointer):
    assert errors_of(fields)[0]["pointer"] == pointer


def test_openai_line_for_a_completion_may_ask_for_an_id():
    checked = completion_of_line(of_openai(max_tokens=1, temperature=0), DEFAULT_LIMITS)
    assert checked.request["custom_id"] == "q"
    assert checked.num_bytes == len("one two") + 1


@pytest.mark.parametrize("name", ["custom_id", "url", "body"])
def test_openai_line_without_a_field_is_refused(name):
    fields = {key: value for key, value in of_openai().items() if key != name}
    with pytest.raises(RequestInvalid) as refused:
        completion_of_line(fields, DEFAULT_LIMITS)
    assert refused.value.details["errors"][0]["pointer"] == f"/{name}"
