import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import RequestInvalid, ScoreRequest
from model.scoring.request import FIELDS
from model.scoring.sliding_window import SlidingWindow


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


def refusal_of(fields, **options) -> RequestInvalid:
    with pytest.raises(RequestInvalid) as caught:
        ScoreRequest.from_json(fields, **options)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "request_"),
    [
        ({"text": "né"}, ScoreRequest(text=b"n\xc3\xa9")),
        ({"text_b64": b64(b"\xff\x00")}, ScoreRequest(text=b"\xff\x00")),
        ({"text": "a", "custom_id": 7}, ScoreRequest(text=b"a")),
        ({"text": "<bos>\x00"}, ScoreRequest(text=b"<bos>\x00")),
        ({"continuation": "b"}, ScoreRequest(continuations=(b"b",))),
        ({"context": "", "continuation": "b"}, ScoreRequest(continuations=(b"b",))),
        (
            {"context": "a", "continuations": ["b", "cd"]},
            ScoreRequest(context=b"a", continuations=(b"b", b"cd")),
        ),
        (
            {"context_b64": b64(b"\x80"), "continuations_b64": [b64(b"\x81")]},
            ScoreRequest(context=b"\x80", continuations=(b"\x81",)),
        ),
        (
            {"text": "a", "outputs": ["bytes", "top_k"], "top_k": 320},
            ScoreRequest(text=b"a", outputs=frozenset({"bytes", "top_k"}), top_k=320),
        ),
        ({"text": "a", "outputs": [], "top_k": None}, ScoreRequest(text=b"a")),
        (
            {"text": "a", "outputs": ["top_k"]},
            ScoreRequest(text=b"a", outputs=frozenset({"top_k"}), top_k=5),
        ),
        (
            {"text": "a", "top_k": 2},
            ScoreRequest(text=b"a", outputs=frozenset({"top_k"}), top_k=2),
        ),
        ({"text": "", "next_chars": 100}, ScoreRequest(next_chars=100)),
        (
            {"text": "a", "window": {"size": 64, "stride": 16}},
            ScoreRequest(text=b"a", window=SlidingWindow(64, 16)),
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_fields_become_a_request(fields, request_):
    assert ScoreRequest.from_json(fields) == request_


@pytest.mark.parametrize(
    ("fields", "code", "pointer"),
    [
        ({}, "missing_text", ""),
        ({"context": "a"}, "missing_text", ""),
        ({"text": None}, "missing_text", ""),
        ({"text": ""}, "empty_text", "/text"),
        ({"text_b64": ""}, "empty_text", "/text"),
        ({"context": "a", "continuation": ""}, "empty_text", "/continuation"),
        ({"continuations": ["a", ""]}, "empty_text", "/continuations/1"),
        ({"continuations": []}, "invalid_field", "/continuations"),
        ({"continuations": "ab"}, "invalid_field", "/continuations"),
        ({"continuations": ["a", 5]}, "invalid_field", "/continuations/1"),
        ({"text": 5}, "invalid_field", "/text"),
        ({"text": ["a"]}, "invalid_field", "/text"),
        ({"text": "\ud800"}, "invalid_unicode", "/text"),
        ({"continuations": ["a", "\udfff"]}, "invalid_unicode", "/continuations/1"),
        ({"text_b64": "a"}, "invalid_base64", "/text_b64"),
        ({"text_b64": "YQ==\n"}, "invalid_base64", "/text_b64"),
        ({"text_b64": "é"}, "invalid_base64", "/text_b64"),
        ({"text": "a", "text_b64": "YQ=="}, "conflicting_fields", ""),
        ({"text": "a", "continuation": "b"}, "conflicting_fields", ""),
        ({"text": "a", "context": "b"}, "conflicting_fields", ""),
        ({"continuation": "a", "continuations": ["b"]}, "conflicting_fields", ""),
        ({"text": "a", "outputs": "bytes"}, "invalid_field", "/outputs"),
        ({"text": "a", "outputs": [["bytes"]]}, "invalid_field", "/outputs"),
        ({"text": "a", "outputs": ["bytes", "colour"]}, "unknown_output", "/outputs/1"),
        ({"text": "a", "outputs": ["top_k"], "top_k": 0}, "invalid_field", "/top_k"),
        ({"text": "a", "outputs": ["top_k"], "top_k": 321}, "invalid_field", "/top_k"),
        ({"text": "a", "outputs": ["top_k"], "top_k": True}, "invalid_field", "/top_k"),
        ({"text": "a", "outputs": ["top_k"], "top_k": 2.0}, "invalid_field", "/top_k"),
        ({"text": "a", "top_k": 0}, "invalid_field", "/top_k"),
        ({"text": "a", "next_chars": 0}, "invalid_field", "/next_chars"),
        ({"text": "a", "next_chars": 101}, "invalid_field", "/next_chars"),
        ({"text": "a", "next_chars": True}, "invalid_field", "/next_chars"),
        ({"continuation": "a", "next_chars": 3}, "conflicting_fields", "/next_chars"),
        (
            {"text": "a", "next_chars": 3, "window": {"size": 64, "stride": 16}},
            "conflicting_fields",
            "/next_chars",
        ),
        ({"text": "a", "window": 64}, "invalid_field", "/window"),
        ({"text": "a", "window": {"size": 64}}, "invalid_field", "/window"),
        ({"text": "a", "window": {"size": 0, "stride": 16}}, "invalid_field", "/window/size"),
        ({"text": "a", "window": {"size": 64, "stride": "a"}}, "invalid_field", "/window/stride"),
        ({"text": "a", "window": {"size": 64, "stride": True}}, "invalid_field", "/window/stride"),
        (
            {"continuation": "a", "window": {"size": 64, "stride": 16}},
            "conflicting_fields",
            "/window",
        ),
        ({"text": "a", "colour": 1}, "unknown_field", "/colour"),
        ({"text": "a", "A secret text": 1}, "unknown_field", ""),
        (["text"], "invalid_field", ""),
        ("text", "invalid_field", ""),
    ],
    ids=str,
)
def test_malformed_fields_are_refused_where_they_are(fields, code, pointer):
    refusal = refusal_of(fields)

    assert (refusal.code, refusal.pointer) == (code, pointer)


SHORT_TEXTS = st.text(alphabet="aA=\0é\ud800", max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | SHORT_TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(SHORT_TEXTS, values),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), JSON))
def test_no_json_object_gives_another_error(fields):
    try:
        request = ScoreRequest.from_json(fields)
    except RequestInvalid:
        return
    assert request.num_bytes > 0


@given(st.text(min_size=10, alphabet="天地玄黄"))
def test_no_message_holds_the_text(secret):
    for fields in (
        {"text": secret, "continuation": secret},
        {"text_b64": secret},
        {"text": secret, secret: 1},
        {"text": secret, "outputs": [secret]},
        {"text": secret + "\ud800"},
    ):
        refusal = refusal_of(fields)
        assert secret[:10] not in refusal.message + refusal.pointer + refusal.code


@pytest.mark.parametrize(
    ("fields", "num_bytes", "pointer"),
    [
        ({"text": "é" * 5}, 10, "/text"),
        ({"context": "abcd", "continuations": ["e", "efghij"]}, 10, "/continuations"),
    ],
    ids=str,
)
def test_limit_counts_the_bytes_that_the_model_reads_at_once(fields, num_bytes, pointer):
    ScoreRequest.from_json(fields, max_text_bytes=num_bytes)
    refusal = refusal_of(fields, max_text_bytes=num_bytes - 1)

    assert (refusal.code, refusal.pointer) == ("text_too_large", pointer)
    assert f"limit is {num_bytes - 1}" in refusal.message


def test_stride_over_the_size_of_a_window_is_that_size():
    fields = {"text": "a", "window": {"size": 64, "stride": 65}}
    assert ScoreRequest.from_json(fields).window == SlidingWindow(64, 64)


def test_context_is_read_once():
    assert ScoreRequest(text=b"abc").num_bytes == 3
    assert ScoreRequest(context=b"abc", continuations=(b"d", b"ef")).num_bytes == 6


@pytest.mark.parametrize(
    ("window", "pointer"),
    [({"size": 65, "stride": 32}, "/window/size"), ({"size": 64, "stride": 24}, "/window/stride")],
    ids=str,
)
def test_window_keeps_to_the_limits_of_the_model(window, pointer):
    limits = {"max_text_bytes": 64, "window_size": 16}
    ScoreRequest.from_json({"text": "a" * 99, "window": {"size": 64, "stride": 32}}, **limits)
    refusal = refusal_of({"text": "a" * 99, "window": window}, **limits)

    assert (refusal.code, refusal.pointer) == ("invalid_field", pointer)


def test_text_in_windows_counts_what_each_window_reads():
    assert ScoreRequest(text=bytes(100), window=SlidingWindow(64, 32)).num_bytes == 64 + 64 + 36


def test_next_characters_leave_room_for_the_longest_one():
    fields = {"text": "a" * 61, "next_chars": 1}
    ScoreRequest.from_json(fields, max_text_bytes=64)

    assert refusal_of(fields, max_text_bytes=63).code == "text_too_large"
