"""Fields of a request to a checked job: what is taken, what is refused and where, every limit."""

import base64

import pytest

from app.requests.intake import canonical_json, to_job
from contract import keys
from contract.errors import BodyTooLarge, EmptyText, RequestInvalid, TextTooLarge
from contract.settings import load_settings

NOW = 1_800_000_000.0
LIMITS = {
    "EVASCORE_MAX_TEXT_BYTES": "10",
    "EVASCORE_MAX_WINDOWED_BYTES": "30",
    "EVASCORE_MAX_JOB_BYTES": "40",
    "EVASCORE_MAX_ITEMS": "3",
    "EVASCORE_MICRO_BATCH_BYTES": "16",
}


def job_of(fields, **limits: str):
    return to_job(fields, load_settings(limits), now=NOW, request_id="r")


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


def test_single_text_becomes_one_request_with_defaults():
    job = job_of({"text": "naïve"})
    assert job.requests == [{"text": "naïve"}]
    assert (job.num_bytes, job.is_single, job.priority) == (6, True, keys.INTERACTIVE)
    assert (job.submitted_at, job.deadline_at) == (NOW, NOW + 3600)


def test_what_an_item_does_not_say_the_request_says():
    job = job_of(
        {"items": [{"text": "a"}, {"text": "b", "outputs": ["bytes"]}], "outputs": ["top_k"]}
    )
    assert job.requests == [
        {"text": "a", "outputs": ["top_k"], "top_k": 5},
        {"text": "b", "outputs": ["bytes"]},
    ]


def test_a_number_of_likeliest_bytes_asks_for_them():
    job = job_of({"items": [{"text": "a"}, {"text": "b", "top_k": 2}], "outputs": ["bytes"]})
    assert job.requests == [
        {"text": "a", "outputs": ["bytes"]},
        {"text": "b", "outputs": ["bytes", "top_k"], "top_k": 2},
    ]
    assert job_of({"text": "x", "top_k": 7}).requests == [
        {"text": "x", "outputs": ["top_k"], "top_k": 7}
    ]


def test_whole_number_may_be_spelled_with_a_fraction_of_zero():
    fields = {"text": "x", "top_k": 5, "spans": [[0, 1]], "window": {"size": 8, "stride": 4}}
    spelled = {**fields, "top_k": 5.0, "spans": [[0.0, 1.0]], "window": {"size": 8.0, "stride": 4}}
    assert canonical_json(job_of(spelled)) == canonical_json(job_of(fields))
    assert job_of({"text": "x", "next_chars": 2.0}).requests[0]["next_chars"] == 2


REFUSED = {
    "nothing": ({}, ""),
    "two": ({"text": "secret", "text_b64": "eA=="}, ""),
    "text-and-items": ({"text": "secret", "items": [{"text": "x"}]}, ""),
    "text-and-context": ({"text": "secret", "context": "x"}, ""),
    "context-alone": ({"context": "secret"}, ""),
    "two-contexts": ({"context": "a", "context_b64": "", "continuation": "x"}, ""),
    "two-continuations": ({"continuation": "a", "continuations": ["b"]}, ""),
    "number": ({"text": 17}, "/text"),
    "object": ({"text": {"secret": 1}}, "/text"),
    "list": ({"text": ["secret"]}, "/text"),
    "true": ({"text": True}, "/text"),
    "base64": ({"text_b64": "secret!"}, "/text_b64"),
    "base64-padding": ({"text_b64": "eA"}, "/text_b64"),
    "base64-url": ({"text_b64": "_-8="}, "/text_b64"),
    "base64-unicode": ({"text_b64": "ä"}, "/text_b64"),
    "unknown": ({"text": "x", "colour": 1}, "/colour"),
    "unknown-name-is-text": ({"text": "x", "My secret": 1}, ""),
    "unknown-in-item": ({"items": [{"text": "x", "colour": 1}]}, "/items/0/colour"),
    "priority-in-item": ({"items": [{"text": "x", "priority": "bulk"}]}, "/items/0/priority"),
    "items-in-item": ({"items": [{"items": []}]}, "/items/0/items"),
    "output": ({"text": "x", "outputs": ["next_chars"]}, "/outputs/0"),
    "outputs-string": ({"text": "x", "outputs": "bytes"}, "/outputs"),
    "outputs-empty": ({"text": "x", "outputs": []}, "/outputs"),
    "top_k-0": ({"text": "x", "outputs": ["top_k"], "top_k": 0}, "/top_k"),
    "top_k-321": ({"text": "x", "outputs": ["top_k"], "top_k": 321}, "/top_k"),
    "top_k-float": ({"text": "x", "outputs": ["top_k"], "top_k": 5.5}, "/top_k"),
    "top_k-true": ({"text": "x", "outputs": ["top_k"], "top_k": True}, "/top_k"),
    "custom_id-empty": ({"text": "x", "custom_id": ""}, "/custom_id"),
    "custom_id-long": ({"text": "x", "custom_id": "c" * 129}, "/custom_id"),
    "custom_id-number": ({"text": "x", "custom_id": 1}, "/custom_id"),
    "custom_id-of-items": ({"items": [{"text": "x"}], "custom_id": "c"}, ""),
    "deadline-0": ({"text": "x", "deadline_s": 0}, "/deadline_s"),
    "deadline-negative": ({"text": "x", "deadline_s": -1}, "/deadline_s"),
    "deadline-late": ({"text": "x", "deadline_s": 21_601}, "/deadline_s"),
    "deadline-string": ({"text": "x", "deadline_s": "9"}, "/deadline_s"),
    "deadline-nan": ({"text": "x", "deadline_s": float("nan")}, "/deadline_s"),
    "priority": ({"text": "x", "priority": "urgent"}, "/priority"),
    "spans-unknown": ({"text": "x", "spans": "secret"}, "/spans"),
    "spans-number": ({"text": "x", "spans": 1}, "/spans"),
    "spans-empty": ({"text": "x", "spans": []}, "/spans"),
    "span-negative": ({"text": "x", "spans": [[-1, 1]]}, "/spans"),
    "span-huge": ({"text": "x", "spans": [[0, 2**53]]}, "/spans"),
    "span-float": ({"text": "x", "spans": [[0, 0.5]]}, "/spans"),
    "span-of-three": ({"text": "x", "spans": [[0, 1, 2]]}, "/spans"),
    "spans-of-items": ({"items": [{"text": "x"}], "spans": "words"}, ""),
    "next_chars-0": ({"text": "x", "next_chars": 0}, "/next_chars"),
    "next_chars-101": ({"text": "x", "next_chars": 101}, "/next_chars"),
    "next_chars-true": ({"text": "x", "next_chars": True}, "/next_chars"),
    "next_chars-of-continuation": ({"continuation": "x", "next_chars": 1}, ""),
    "next_chars-and-window": (
        {"text": "x", "next_chars": 1, "window": {"size": 4, "stride": 2}},
        "",
    ),
    "window-number": ({"text": "x", "window": 4}, "/window"),
    "window-without-stride": ({"text": "x", "window": {"size": 4}}, "/window/stride"),
    "window-stride": ({"text": "x", "window": {"size": 4, "stride": 0}}, "/window/stride"),
    "window-stride-huge": ({"text": "x", "window": {"size": 4, "stride": 2**53}}, "/window/stride"),
    "window-size": ({"text": "x", "window": {"size": 11, "stride": 2}}, "/window/size"),
    "window-of-continuation": ({"continuation": "x", "window": {"size": 4, "stride": 2}}, ""),
    "items-empty": ({"items": []}, "/items"),
    "items-object": ({"items": {"0": {"text": "x"}}}, "/items"),
    "item-null": ({"items": [{"text": "x"}, None]}, "/items/1"),
    "item-empty": ({"items": [{}]}, "/items/0"),
    "continuations-empty": ({"continuations": []}, "/continuations"),
    "continuations-string": ({"continuations": "secret"}, "/continuations"),
    "continuations-number": ({"continuations": ["a", 1]}, "/continuations/1"),
    "continuations-many": ({"continuations": ["a"] * 4}, "/continuations"),
    "items-many": ({"items": [{"text": "x"}] * 4}, "/items"),
}


@pytest.mark.parametrize(("fields", "pointer"), REFUSED.values(), ids=REFUSED)
def test_wrong_field_is_pointed_at_and_its_value_not_quoted(fields, pointer):
    with pytest.raises(RequestInvalid) as raised:
        job_of(fields, **LIMITS)
    assert raised.value.details["errors"][0]["pointer"] == pointer
    assert "secret" not in str(raised.value.details)


def test_item_that_is_no_object_is_shown_the_form_of_one():
    with pytest.raises(RequestInvalid) as raised:
        job_of({"items": ["secret"]})
    (error,) = raised.value.details["errors"]
    assert error == {
        "detail": 'must be an object, such as {"text": "any text"}',
        "pointer": "/items/0",
    }


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"text": ""}, "/text"),
        ({"text_b64": ""}, "/text_b64"),
        ({"items": [{"text": "x"}, {"text": ""}]}, "/items/1/text"),
        ({"context": "a", "continuations": ["b", ""]}, "/continuations/1"),
    ],
)
def test_empty_text_is_refused(fields, pointer):
    with pytest.raises(EmptyText) as raised:
        job_of(fields)
    assert raised.value.details["errors"] == [{"detail": "is empty", "pointer": pointer}]


@pytest.mark.parametrize(
    ("fields", "pointer", "actual_bytes"),
    [
        ({"text": "ä" * 5 + "x"}, "/text", 11),
        ({"text_b64": b64(b"x" * 11)}, "/text_b64", 11),
        ({"context": "x" * 10, "continuation": "y"}, "/continuation", 11),
        ({"context": "x" * 9, "continuations": ["y", "yy"]}, "/continuations/1", 11),
        ({"items": [{"text": "x"}, {"text": "x" * 11}]}, "/items/1/text", 11),
    ],
)
def test_text_one_byte_over_the_limit_is_refused(fields, pointer, actual_bytes):
    with pytest.raises(TextTooLarge) as raised:
        job_of(fields, **LIMITS)
    assert raised.value.details == {
        "limit_bytes": 10,
        "actual_bytes": actual_bytes,
        "errors": [{"detail": "is too large", "pointer": pointer}],
    }


@pytest.mark.parametrize(
    ("options", "limit_bytes"),
    [({"window": {"size": 10, "stride": 10}}, 30), ({"next_chars": 1}, 7)],
    ids=["window", "next_chars"],
)
def test_option_has_a_limit_of_its_own(options, limit_bytes):
    assert job_of({"text": "x" * limit_bytes, **options}, **LIMITS).num_bytes == limit_bytes
    with pytest.raises(TextTooLarge) as raised:
        job_of({"text": "x" * (limit_bytes + 1), **options}, **LIMITS)
    assert raised.value.details["limit_bytes"] == limit_bytes


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "x" * 8, "outputs": ["top_k"], "top_k": 320},
        {"text": "x", "spans": [[0, 1]] * 400},
        {"items": [{"text": "x", "outputs": ["top_k"], "top_k": 100}] * 3},
    ],
    ids=["top_k", "ranges", "items"],
)
def test_result_over_the_limit_is_refused(fields):
    assert job_of(fields).num_bytes
    with pytest.raises(BodyTooLarge) as raised:
        job_of(fields, EVASCORE_MAX_RESULT_BYTES="10000")
    details = raised.value.details
    assert details["limit_bytes"] == 10_000 < details["actual_bytes"]


def test_windows_count_every_byte_that_they_read():
    window = {"window": {"size": 8, "stride": 4}}
    assert job_of({"text": "x" * 21, **window}, **LIMITS).num_bytes == 4 * 8 + 5
    with pytest.raises(BodyTooLarge):
        job_of({"text": "x" * 30, **window}, **LIMITS)


def test_empty_text_is_taken_where_next_characters_are_asked_for():
    assert job_of({"text": "", "next_chars": 1}).num_bytes == 1


@pytest.mark.parametrize("fields", [{"text": "ä" * 5}, {"context": "x" * 9, "continuation": "y"}])
def test_text_at_the_limit_is_taken(fields):
    assert job_of(fields, **LIMITS).num_bytes == 10


def test_context_counts_once_towards_the_limit_of_the_job():
    job = job_of({"context": "x" * 9, "continuations": ["y"] * 3}, **LIMITS)
    assert job.num_bytes == 12
    item = {"context": "x" * 8, "continuations": ["yy"] * 3}
    with pytest.raises(BodyTooLarge) as raised:
        job_of({"items": [item] * 3}, **LIMITS)
    assert raised.value.details == {"limit_bytes": 40, "actual_bytes": 42}


@pytest.mark.parametrize(
    ("fields", "priority"),
    [
        ({"items": [{"text": "x" * 8}] * 2}, keys.INTERACTIVE),
        ({"items": [{"text": "x" * 9}] * 2}, keys.BULK),
        ({"items": [{"text": "x" * 9}] * 2, "priority": "interactive"}, keys.INTERACTIVE),
        ({"context": "x" * 4, "continuations": ["y"] * 3}, keys.INTERACTIVE),
        ({"context": "x" * 5, "continuations": ["y" * 5] * 3}, keys.BULK),
        ({"items": [{"context": "x" * 7, "continuations": ["y"] * 3}] * 2}, keys.BULK),
        ({"text": "x", "priority": "bulk"}, keys.BULK),
    ],
)
def test_several_texts_beyond_one_batch_are_bulk_unless_they_ask_otherwise(fields, priority):
    assert job_of(fields, **LIMITS).priority == priority


def test_one_text_is_interactive_however_long():
    limits = {**LIMITS, "EVASCORE_MICRO_BATCH_BYTES": "4"}
    assert job_of({"text": "x" * 10}, **limits).priority == keys.INTERACTIVE


def test_a_million_wrong_values_are_reported_by_a_few_errors():
    for fields in (
        {"text": "x", "outputs": [1] * 1_000_000},
        {"continuations": [1] * 256, "text": "x"},
        {"items": [{"text": 1}] * 256},
        {f"f{number}": 1 for number in range(1_000_000)},
    ):
        with pytest.raises(RequestInvalid) as raised:
            job_of(fields)
        assert 1 <= len(raised.value.details["errors"]) <= 10


def test_canonical_json_is_the_same_for_the_same_request_at_another_time():
    fields = {"outputs": ["bytes"], "text": "x"}
    first = to_job(fields, load_settings({}), now=NOW, request_id="a")
    later = to_job(dict(reversed(fields.items())), load_settings({}), now=NOW + 7, request_id="b")
    other = to_job({**fields, "text": "y"}, load_settings({}), now=NOW, request_id="a")
    assert canonical_json(first) == canonical_json(later)
    assert canonical_json(first) != canonical_json(other)


def test_the_model_that_is_asked_for_is_part_of_what_a_request_asks_for():
    plain, named, pinned = (
        job_of({"text": "a", **asked})
        for asked in ({}, {"model": "mine"}, {"model": "mine@0123456789ab"})
    )
    assert [job.model for job in (plain, named, pinned)] == ["", "mine", "mine@0123456789ab"]
    assert len({canonical_json(job) for job in (plain, named, pinned)}) == 3


def test_a_request_without_a_model_has_the_digest_of_earlier_releases():
    job = job_of({"text": "a", "deadline_s": 60})
    assert canonical_json(job) == b'[[{"text":"a"}],true,0,60.0]'
