import base64

import pytest

from contract.errors import ClientError
from model import ScoreRequest
from model.scoring.sliding_window import SlidingWindow


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


def refusal_of(fields, **options) -> ClientError:
    with pytest.raises(ClientError) as caught:
        ScoreRequest.from_json(fields, **options)
    return caught.value


def pointer_of(refusal: ClientError) -> str:
    return refusal.details["errors"][0]["pointer"]


@pytest.mark.parametrize(
    ("fields", "request_"),
    [
        ({"text": "né"}, ScoreRequest(text=b"n\xc3\xa9")),
        ({"text_b64": b64(b"\xff\x00")}, ScoreRequest(text=b"\xff\x00")),
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

    assert (refusal.code, pointer_of(refusal)) == ("text_too_large", pointer)
    assert f"limit is {num_bytes - 1}" in refusal.message


def test_stride_over_the_size_of_a_window_is_that_size():
    fields = {"text": "a", "window": {"size": 64, "stride": 65}}
    assert ScoreRequest.from_json(fields).window == SlidingWindow(64, 64)


def test_context_is_read_once():
    assert ScoreRequest(text=b"abc").num_bytes == 3
    assert ScoreRequest(context=b"abc", continuations=(b"d", b"ef")).num_bytes == 6


def test_next_character_counts_as_a_byte():
    assert ScoreRequest(text=b"abc", next_chars=100).num_bytes == 103
    assert ScoreRequest(next_chars=1).num_bytes == 2


@pytest.mark.parametrize(
    ("window", "pointer"),
    [({"size": 65, "stride": 32}, "/window/size"), ({"size": 64, "stride": 24}, "/window/stride")],
    ids=str,
)
def test_window_keeps_to_the_limits_of_the_model(window, pointer):
    limits = {"max_text_bytes": 64, "window_size": 16}
    ScoreRequest.from_json({"text": "a" * 99, "window": {"size": 64, "stride": 32}}, **limits)
    refusal = refusal_of({"text": "a" * 99, "window": window}, **limits)

    assert (refusal.code, pointer_of(refusal)) == ("invalid_request", pointer)


def test_text_in_windows_counts_what_each_window_reads():
    assert ScoreRequest(text=bytes(100), window=SlidingWindow(64, 32)).num_bytes == 64 + 64 + 36


def test_next_characters_leave_room_for_the_longest_one():
    fields = {"text": "a" * 61, "next_chars": 1}
    ScoreRequest.from_json(fields, max_text_bytes=64)

    assert refusal_of(fields, max_text_bytes=63).code == "text_too_large"
