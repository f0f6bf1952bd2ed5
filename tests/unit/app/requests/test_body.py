"""Bodies of every media type, right and wrong, to the fields of a request."""

import base64
import json

import pytest

from app.requests.body import parse_body
from contract.errors import MalformedBody, RequestInvalid, UnsupportedMediaType
from contract.grammar.json_text import MAX_JSON_VALUES, parse_json

JSON = "application/json"


def parse(body: bytes, content_type: str = JSON):
    return parse_body(body, content_type)


@pytest.mark.parametrize(
    ("body", "content_type", "fields"),
    [
        (b'{"text": "na\xc3\xafve \\ud83d\\ude00 \\u0000"}', JSON, {"text": "naïve 😀 \0"}),
        (b'{"text": "x"}', "Application/JSON; charset=UTF-8", {"text": "x"}),
        (b'\xef\xbb\xbf{"text": "x"}', JSON, {"text": "x"}),
        (b"\xef\xbb\xbfna\xc3\xafve\n", "text/plain", {"text": "\ufeffnaïve\n"}),
        (b"x", "text/plain; charset=utf-8", {"text": "x"}),
        (b"", "text/plain", {"text": ""}),
        (bytes(range(256)), "application/octet-stream", {"text_b64": "*"}),
    ],
    ids=["json", "json-charset", "json-bom", "plain-bom", "plain-charset", "plain-empty", "octets"],
)
def test_body_becomes_fields(body, content_type, fields):
    expected = {
        name: base64.b64encode(body).decode() if value == "*" else value
        for name, value in fields.items()
    }
    assert parse(body, content_type) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"secret",
        b'{"text": "secret"',
        b'{"text": NaN}',
        b'{"deadline_s": Infinity}',
        b'{"deadline_s": 1e999}',
        b'{"text": "\\ud800"}',
        b'{"text": "\xed\xa0\x80"}',
        b'{"text": "\xff"}',
        '{"text": "x"}'.encode("utf-16"),
        b'{"text": "secret", "text": "y"}',
        b'{"items": [{"text": "secret", "text": "secret"}]}',
        b"[" * 100_000,
        b'{"text":' + b"[" * 1020 + b"]" * 1020 + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_malformed_json_is_refused_without_being_quoted(body):
    with pytest.raises(MalformedBody) as raised:
        parse(body)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "piece", [b"{}", b"[]", b"1", b'""', b'{"a":1}', rb'"\\"'], ids=lambda piece: piece.decode()
)
@pytest.mark.parametrize("max_values", [MAX_JSON_VALUES, 8 * 1024**2])
def test_json_of_too_many_values_is_refused_before_it_is_parsed(piece, max_values):
    """Numbers alone may be more, where a prompt is a list of ids."""
    body = b'{"text":[' + b",".join([piece] * 400_000) + b"]}"
    if piece == b"1" and max_values > len(body):
        assert parse_json(body, max_values=max_values) == {"text": [1] * 400_000}
        return
    with pytest.raises(RequestInvalid, match="not valid") as raised:
        parse_json(body, max_values=max_values)
    assert "JSON values" in raised.value.details["errors"][0]["detail"]


@pytest.mark.parametrize("text", ["{[,:" * 100_000, '"{' * 200_000, '\\"\\{' * 150_000])
def test_text_that_looks_like_json_is_not_counted(text):
    assert parse(json.dumps({"text": text}).encode()) == {"text": text}


@pytest.mark.parametrize("body", [b"1", b"null", b'"secret"', b"[]", b"true"])
def test_json_that_is_no_object_is_refused(body):
    with pytest.raises(RequestInvalid):
        parse(body)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/html",
        "application/jsonp",
        "application/json; charset=latin-1",
        "text/plain; charset=iso-8859-1",
    ],
)
def test_other_media_types_and_charsets_are_refused(content_type):
    with pytest.raises(UnsupportedMediaType):
        parse(b'{"text": "x"}', content_type)


def test_plain_text_that_is_not_utf8_is_refused():
    with pytest.raises(MalformedBody, match="byte 2"):
        parse(b"ab\xff", "text/plain")
