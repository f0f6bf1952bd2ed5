"""Options in the query: read as JSON has them, and taken for what a body does not say."""

import pytest
from werkzeug.datastructures import MultiDict

from app.requests.query import options_of_texts, with_defaults
from contract.errors import RequestInvalid

WINDOW = {"size": 64, "stride": 32}


def options_of(**query: str | list[str]):
    return options_of_texts(MultiDict(query))


def test_options_have_the_types_of_json():
    assert options_of(
        outputs="bytes,top_k",
        top_k="3",
        deadline_s="2.5",
        priority="bulk",
        custom_id="a",
        spans="words",
        next_chars="3.0",
        window="64,32",
    ) == {
        "outputs": ["bytes", "top_k"],
        "top_k": 3,
        "deadline_s": 2.5,
        "priority": "bulk",
        "custom_id": "a",
        "spans": "words",
        "next_chars": 3,
        "window": WINDOW,
    }


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"colour": "1"}, "colour"),
        ({"window": "1"}, "window"),
        ({"window": "1,2,3"}, "window"),
        ({"next_chars": "five"}, "next_chars"),
        ({"My secret": "1"}, ""),
        ({"top_k": "five"}, "top_k"),
        ({"top_k": "5.5"}, "top_k"),
        ({"top_k": "1_0"}, "top_k"),
        ({"top_k": "1e999"}, "top_k"),
        ({"top_k": " 5"}, "top_k"),
        ({"top_k": "9" * 5000}, "top_k"),
        ({"deadline_s": ""}, "deadline_s"),
        ({"deadline_s": "nan"}, "deadline_s"),
        ({"top_k": ["1", "2"]}, "top_k"),
        ({"top_k": "0"}, "top_k"),
        ({"next_chars": "101"}, "next_chars"),
        ({"window": "0,1"}, "window"),
        ({"spans": "bytes"}, "spans"),
        ({"outputs": "bytes,colour"}, "outputs"),
        ({"priority": "urgent"}, "priority"),
        ({"custom_id": ""}, "custom_id"),
    ],
    ids=str,
)
def test_wrong_query_parameter_is_named_and_not_quoted(query, parameter):
    with pytest.raises(RequestInvalid) as raised:
        options_of(**query)
    (error,) = raised.value.details["errors"]
    assert error["parameter"] == parameter
    assert "five" not in error["detail"]


FILLED = {
    "absent": ({"text": "x"}, {"spans": "words"}, {"text": "x", "spans": "words"}),
    "null": ({"text": "x", "top_k": None}, {"top_k": 3}, {"text": "x", "top_k": 3}),
    "given": ({"text": "x", "top_k": 1}, {"top_k": 3}, {"text": "x", "top_k": 1}),
    "unknown-stays": ({"text": "x", "colour": None}, {}, {"text": "x", "colour": None}),
    "not-of-continuations": (
        {"continuation": "x"},
        {"next_chars": 3, "window": WINDOW, "spans": "words"},
        {"continuation": "x", "spans": "words"},
    ),
    "window-excludes-next-characters": (
        {"text_b64": "eA=="},
        {"next_chars": 3, "window": WINDOW},
        {"text_b64": "eA==", "window": WINDOW},
    ),
    "given-window": (
        {"text": "x", "window": WINDOW},
        {"next_chars": 3},
        {"text": "x", "window": WINDOW},
    ),
    "given-next-characters": (
        {"text": "x", "next_chars": 3},
        {"window": WINDOW},
        {"text": "x", "next_chars": 3},
    ),
    "items": (
        {"items": [{"text": "x"}, {"continuation": "y", "spans": "lines"}, 5]},
        {"spans": "words", "next_chars": 3, "custom_id": "a", "priority": "bulk", "top_k": 2},
        {
            "items": [
                {"text": "x", "spans": "words", "next_chars": 3},
                {"continuation": "y", "spans": "lines"},
                5,
            ],
            "priority": "bulk",
            "top_k": 2,
        },
    ),
    "items-of-no-list": ({"items": {}}, {"spans": "words"}, {"items": {}}),
}


@pytest.mark.parametrize(("fields", "options", "filled"), FILLED.values(), ids=FILLED)
def test_options_are_defaults_where_a_text_can_take_them(fields, options, filled):
    assert with_defaults(fields, options) == filled
