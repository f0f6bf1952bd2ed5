"""The fields of one text are taken or refused, each refusal where its fault is."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import ClientError, EmptyText, RequestInvalid, TextTooLarge
from contract.grammar.checked_text import Checked, check_text
from contract.grammar.limits import DEFAULT_LIMITS, NO_LIMITS, FixedLimits
from contract.grammar.text_request import TextRequest


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


def check(fields, limits=DEFAULT_LIMITS) -> Checked:
    return check_text(fields, limits)


def refusal_of(fields, limits=DEFAULT_LIMITS) -> ClientError:
    with pytest.raises(ClientError) as caught:
        check(fields, limits)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "error", "pointer"),
    [
        ({}, RequestInvalid, ""),
        ({"context": "a"}, RequestInvalid, ""),
        ({"text": None}, RequestInvalid, ""),
        ({"text": ""}, EmptyText, "/text"),
        ({"text_b64": ""}, EmptyText, "/text_b64"),
        ({"context": "a", "continuation": ""}, EmptyText, "/continuation"),
        ({"continuations": ["a", ""]}, EmptyText, "/continuations/1"),
        ({"continuations": []}, RequestInvalid, "/continuations"),
        ({"continuations": "ab"}, RequestInvalid, "/continuations"),
        ({"continuations": ["a", 5]}, RequestInvalid, "/continuations/1"),
        ({"text": 5}, RequestInvalid, "/text"),
        ({"text": ["a"]}, RequestInvalid, "/text"),
        ({"text": "\ud800"}, RequestInvalid, "/text"),
        ({"continuations": ["a", "\udfff"]}, RequestInvalid, "/continuations/1"),
        ({"text_b64": "a"}, RequestInvalid, "/text_b64"),
        ({"text_b64": "YQ==\n"}, RequestInvalid, "/text_b64"),
        ({"text_b64": "é"}, RequestInvalid, "/text_b64"),
        ({"text": "a", "text_b64": "YQ=="}, RequestInvalid, ""),
        ({"text": "a", "continuation": "b"}, RequestInvalid, ""),
        ({"text": "a", "context": "b"}, RequestInvalid, ""),
        ({"continuation": "a", "continuations": ["b"]}, RequestInvalid, ""),
        ({"text": "a", "outputs": "bytes"}, RequestInvalid, "/outputs"),
        ({"text": "a", "outputs": [["bytes"]]}, RequestInvalid, "/outputs/0"),
        ({"text": "a", "outputs": ["bytes", "colour"]}, RequestInvalid, "/outputs/1"),
        ({"text": "a", "top_k": 0}, RequestInvalid, "/top_k"),
        ({"text": "a", "top_k": 321}, RequestInvalid, "/top_k"),
        ({"text": "a", "top_k": True}, RequestInvalid, "/top_k"),
        ({"text": "a", "top_k": 2.5}, RequestInvalid, "/top_k"),
        ({"text": "a", "next_chars": 0}, RequestInvalid, "/next_chars"),
        ({"text": "a", "next_chars": 101}, RequestInvalid, "/next_chars"),
        ({"text": "a", "next_chars": True}, RequestInvalid, "/next_chars"),
        ({"continuation": "a", "next_chars": 3}, RequestInvalid, ""),
        ({"text": "a", "next_chars": 3, "window": {"size": 9, "stride": 9}}, RequestInvalid, ""),
        ({"text": "a", "window": 64}, RequestInvalid, "/window"),
        ({"text": "a", "window": {"size": 64}}, RequestInvalid, "/window/stride"),
        ({"text": "a", "window": {"size": 0, "stride": 16}}, RequestInvalid, "/window/size"),
        ({"text": "a", "window": {"size": 9, "stride": "a"}}, RequestInvalid, "/window/stride"),
        ({"text": "a", "window": {"size": 9, "stride": True}}, RequestInvalid, "/window/stride"),
        ({"text": "a", "window": {"size": 32_768, "stride": 1}}, RequestInvalid, "/window/size"),
        ({"continuation": "a", "window": {"size": 64, "stride": 16}}, RequestInvalid, ""),
        ({"text": "a", "colour": 1}, RequestInvalid, "/colour"),
        ({"text": "a", "A secret text": 1}, RequestInvalid, ""),
        ({"text": "a", "custom_id": ""}, RequestInvalid, "/custom_id"),
        ({"text": "a", "custom_id": 7}, RequestInvalid, "/custom_id"),
        ({"text": "a", "custom_id": "i" * 129}, RequestInvalid, "/custom_id"),
        ({"text": "ab", "spans": "word"}, RequestInvalid, "/spans"),
        ({"text": "ab", "spans": 5}, RequestInvalid, "/spans"),
        ({"text": "ab", "spans": []}, RequestInvalid, "/spans"),
        ({"text": "ab", "spans": {"unit": "words"}}, RequestInvalid, "/spans"),
        (
            {"text": "ab", "spans": {"unit": "words", "ranges": [[0, 1]]}},
            RequestInvalid,
            "/span_unit",
        ),
        ({"text": "ab", "spans": {"unit": "bytes", "ranges": []}}, RequestInvalid, "/spans"),
        ({"text": "ab", "spans": [[0, 1]], "span_unit": "words"}, RequestInvalid, "/span_unit"),
        ({"text": "ab", "spans": [[0, 1], [1]]}, RequestInvalid, "/spans"),
        ({"text": "ab", "spans": [[-1, 1]]}, RequestInvalid, "/spans"),
        ({"text": "ab", "spans": [[0, True]]}, RequestInvalid, "/spans"),
    ],
    ids=str,
)
def test_wrong_fields_are_refused_where_they_are(fields, error, pointer):
    refusal = refusal_of(fields)

    assert type(refusal) is error
    assert refusal.details["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("num_bytes", "more", "remedy"),
    [
        (11, {}, "Split it, or give a window."),
        (20, {}, "Split it, or give a window."),
        (21, {}, "Split it into pieces of at most 20 bytes, each with a window."),
        (21, {"window": {"size": 8, "stride": 4}}, "Split it into pieces of at most 20 bytes."),
    ],
)
def test_remedy_for_a_long_text_works(num_bytes, more, remedy):
    limits = FixedLimits(max_text_bytes=10, max_windowed_bytes=20)
    fields = {"text": "a" * num_bytes, **more}
    assert refusal_of(fields, limits).message.endswith(f". {remedy}")


def test_window_is_no_remedy_where_it_takes_no_longer_texts():
    limits = FixedLimits(max_text_bytes=10, max_windowed_bytes=10)
    assert refusal_of({"text": "a" * 11}, limits).message.endswith(". Split it.")


def test_name_in_the_form_of_a_text_is_not_repeated():
    (error,) = refusal_of({"text": "a", "My Text": 1}).details["errors"]
    hint = "field names are lowercase, and /docs/ lists them"
    assert error == {"detail": f"is not a known field; {hint}", "pointer": ""}


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"text": 5}, "must be a string"),
        ({"text": "a", "top_k": "5"}, "must be an integer"),
        ({"text": "a", "top_k": 321}, "must be at most 320"),
        ({"text": "a", "next_chars": 0}, "must be at least 1"),
        ({"text": "a", "outputs": []}, "must have at least 1 element"),
        ({"text": "a", "custom_id": "i" * 129}, "must have at most 128 characters"),
        ({"text": "a", "window": {"size": 64}}, "is missing"),
        ({"text": "a", "window": [64, 32]}, 'must be an object, such as {"size": 4096, "stride":'),
        ({"text": "a", "topk": 5}, "is not a known field; did you mean top_k?"),
        ({"text": "a", "priority": "bulk"}, "is an option of a whole request"),
        ({"text": "a", "outputs": ["colour"]}, "must be one of 'summary', 'bytes', "),
    ],
    ids=str,
)
def test_details_name_the_limit_in_plain_words(fields, detail):
    assert refusal_of(fields).details["errors"][0]["detail"].startswith(detail)


SHORT_TEXTS = st.text(alphabet="aA=\0é\ud800", max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | SHORT_TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(SHORT_TEXTS, values),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(TextRequest.model_fields)), JSON))
def test_no_json_object_gives_another_error(fields):
    try:
        checked = check(fields)
    except ClientError:
        return
    assert checked.num_bytes > 0


@given(st.text(min_size=10, alphabet="天地玄黄"))
def test_no_error_holds_the_text(secret):
    for fields in (
        {"text": secret, "continuation": secret},
        {"text_b64": secret},
        {"text": secret, secret: 1},
        {"text": secret, "outputs": [secret]},
        {"text": "a", "spans": secret},
        {"text": secret + "\ud800"},
    ):
        refusal = refusal_of(fields)
        assert secret[:10] not in f"{refusal.message} {refusal.details}"


def test_limit_counts_the_bytes_that_the_model_reads_at_once():
    fields = {"context": "abcd", "continuations": ["e", "efghij"]}
    assert check(fields, FixedLimits(max_text_bytes=10)).num_bytes == 11

    refusal = refusal_of(fields, FixedLimits(max_text_bytes=9))
    assert type(refusal) is TextTooLarge
    assert "limit is 9" in refusal.message


def test_without_limits_a_book_is_taken():
    fields = {"text": "a" * 2**21, "window": {"size": 32_767, "stride": 16_384}}
    assert type(refusal_of(fields)) is TextTooLarge
    assert check(fields, NO_LIMITS).num_bytes > 2**21


@pytest.mark.parametrize(
    "fields",
    [
        {"spans": [[0, 1]], "span_unit": "characters"},
        {"spans": {"unit": "characters", "ranges": [[0, 1]]}},
    ],
    ids=["two fields", "one field"],
)
def test_ranges_of_characters_have_a_form_that_older_workers_refuse(fields):
    request = check({"text": "ab", **fields}).request
    assert request == {"text": "ab", "spans": {"unit": "characters", "ranges": [[0, 1]]}}


def test_ranges_of_bytes_have_the_form_of_older_workers():
    request = check({"text": "ab", "spans": [[0, 1]], "span_unit": "bytes"}).request
    assert request == {"text": "ab", "spans": [[0, 1]]}
