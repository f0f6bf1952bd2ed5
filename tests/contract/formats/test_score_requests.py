"""What the web tier describes is what it accepts, and that is what the model takes."""

import base64

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from app.factory import create_app
from app.openapi.document import describe
from app.requests.intake import to_job
from app.requests.models import ScoreBody
from contract.errors import ClientError
from contract.grammar.outputs import MAX_NEXT_CHARS, MAX_TOP_K, OUTPUT_NAMES, RANGE_UNITS, UNITS
from contract.grammar.text_request import TextRequest
from contract.messages import decode_payload, encode_payload
from contract.settings import load_settings
from model.scoring.request import ScoreRequest


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


ACCEPTED = {
    "text": {"text": "x"},
    "nul": {"text": "\0"},
    "bytes": {"text_b64": b64(b"\xff\x00")},
    "null-is-absent": {"text": "x", "text_b64": None, "items": None, "outputs": None},
    "outputs": {"text": "x", "outputs": ["summary", "bytes", "curvature"]},
    "top_k": {"text": "x", "outputs": ["top_k"], "top_k": 320},
    "top_k-default": {"text": "x", "outputs": ["top_k"]},
    "custom_id": {"text": "x", "custom_id": "ä" * 128},
    "continuation": {"context": "a", "continuation": "b"},
    "continuation-alone": {"continuation": "b"},
    "empty-context": {"context": "", "continuation": "b"},
    "mixed-forms": {"context_b64": b64(b"\xff"), "continuations": ["b", "c"]},
    "continuations-b64": {"context": "a", "continuations_b64": [b64(b"\xff")]},
    "items": {"items": [{"text": "x", "custom_id": "1"}, {"context": "a", "continuation": "b"}]},
    "spans": {"text": "ab", "spans": "words"},
    "ranges": {"text": "ab", "spans": [[0, 1], [0, 2]]},
    "ranges-of-a-continuation": {"context": "abc", "continuations": ["d"], "spans": [[0, 1]]},
    "ranges-of-characters": {"text": "ab", "spans": [[0, 1]], "span_unit": "characters"},
    "ranges-with-their-unit": {"text": "ab", "spans": {"unit": "characters", "ranges": [[0, 1]]}},
    "unit-without-ranges": {"text": "ab", "span_unit": "bytes"},
    "next_chars": {"text": "ab", "next_chars": 100},
    "next_chars-of-nothing": {"text": "", "next_chars": 1},
    "window": {"text": "x" * 1000, "window": {"size": 300, "stride": 160}},
    "window-that-is-not-filled": {"text_b64": "eA==", "window": {"size": 300, "stride": 300}},
    "window-with-a-large-stride": {"text": "x" * 50, "window": {"size": 9, "stride": 2**53 - 1}},
    "ranges-of-continuations": {"continuations": ["d", "ef"], "spans": [[1, 0], [1, 2**53 - 1]]},
    "top_k-alone": {"text": "x", "top_k": 7},
    "whole-floats": {"text": "ab", "spans": [[0.0, 1.0]], "top_k": 3.0},
    "items-share-options": {"items": [{"text": "x"}], "outputs": ["top_k"], "top_k": 7},
}


@pytest.mark.parametrize("fields", ACCEPTED.values(), ids=ACCEPTED)
def test_model_takes_what_intake_takes_and_counts_the_same_work(fields):
    job = to_job(fields, load_settings({}), now=0.0, request_id="")
    requests = [ScoreRequest.from_json(request) for request in job.requests]
    assert sum(request.num_bytes for request in requests) == job.work_bytes


plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
encoded = st.binary(max_size=12).map(b64) | st.text("aA+/=_", max_size=9)
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=4,
)
OPTIONS = {
    "custom_id": plain,
    "outputs": st.lists(st.sampled_from(OUTPUT_NAMES), max_size=4),
    "top_k": st.integers(-1, MAX_TOP_K + 1),
    "spans": st.sampled_from([*UNITS, "word"])
    | st.lists(st.lists(st.integers(-1, 12), min_size=1, max_size=3), max_size=3)
    | st.fixed_dictionaries(
        {"unit": st.sampled_from(RANGE_UNITS), "ranges": st.just([[0, 1]])}, optional={"x": plain}
    ),
    "span_unit": st.sampled_from([*RANGE_UNITS, "words"]),
    "next_chars": st.integers(-1, MAX_NEXT_CHARS + 1),
    "window": st.fixed_dictionaries(
        {"size": st.integers(0, 21), "stride": st.integers(0, 21)}, optional={"overlap": plain}
    ),
}
SCORED = {
    "text": plain,
    "text_b64": encoded,
    "continuation": plain,
    "continuation_b64": encoded,
    "continuations": st.lists(plain, max_size=3),
    "continuations_b64": st.lists(encoded, max_size=3),
}
CONTEXTS = {"context": plain, "context_b64": encoded}
one_text = st.one_of(
    st.fixed_dictionaries({name: value}, optional={**OPTIONS, **CONTEXTS})
    for name, value in SCORED.items()
)
whole_request = one_text | st.fixed_dictionaries(
    {"items": st.lists(one_text, max_size=3)},
    optional={
        **OPTIONS,
        "deadline_s": st.floats(allow_nan=False, allow_infinity=False),
        "priority": plain | st.sampled_from(["bulk", "interactive"]),
    },
)


@settings(max_examples=300, deadline=None)
@given(
    whole_request, st.none() | st.tuples(st.sampled_from(sorted(TextRequest.model_fields)), junk)
)
def test_whatever_is_accepted_the_model_takes_after_its_way_through_redis(fields, change):
    if change is not None:
        fields = {**fields, change[0]: change[1]}
    limits = load_settings({"EVASCORE_MAX_TEXT_BYTES": "20"})
    try:
        job = to_job(fields, limits, now=0.0, request_id="")
    except ClientError:
        event("refused")
        return
    event("accepted")
    job = decode_payload(encode_payload(job))
    requests = [ScoreRequest.from_json(one, max_text_bytes=20) for one in job.requests]
    assert sum(one.num_bytes for one in requests) == job.work_bytes


TWO_UNITS = {
    "text": "a",
    "spans": {"unit": "characters", "ranges": [[0, 1]]},
    "span_unit": "bytes",
}


@pytest.fixture(scope="module")
def is_described():
    """Whether the description allows a request."""
    settings = load_settings({"EVASCORE_REDIS_URL": "redis://127.0.0.1:1/0"})
    app = create_app(settings)
    app.extensions["evascore"].changes.close()
    schemas = describe(app, settings)["components"]
    schema = {"$ref": "#/components/schemas/ScoreBody", "components": schemas}
    validator = Draft202012Validator(schema)
    return lambda fields: validator.is_valid(fields)


@settings(max_examples=150, deadline=None)
@given(whole_request, st.none() | st.tuples(st.sampled_from(sorted(ScoreBody.model_fields)), junk))
@example(TWO_UNITS, None)
@example(TWO_UNITS | {"span_unit": "characters"}, None)
@example({"items": [TWO_UNITS]}, None)
@example({"text_b64": "AAAA="}, None)
@example({"text_b64": "AAAA===="}, None)
def test_request_is_accepted_if_and_only_if_its_description_allows_it(is_described, fields, change):
    if change is not None:
        fields = {**fields, change[0]: change[1]}
    try:
        to_job(fields, load_settings({}), now=0.0, request_id="")
        is_accepted = True
    except ClientError:
        is_accepted = False
    event(f"accepted: {is_accepted}")
    assert is_described(fields) == is_accepted
