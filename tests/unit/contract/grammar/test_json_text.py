"""JSON is read strictly, and errors name the fault and its place."""

import pytest

from contract.errors import MalformedBody, RequestInvalid
from contract.grammar.json_text import parse_json


def test_byte_order_mark_is_skipped():
    assert parse_json(b'\xef\xbb\xbf{"text": "a"}') == {"text": "a"}


@pytest.mark.parametrize(
    ("body", "place"), [(b'{"text":"caf\xe9"}', 12), (b'\xef\xbb\xbf{"a":"\xff"}', 9)]
)
def test_another_encoding_is_named_with_its_place(body, place):
    with pytest.raises(MalformedBody, match=f"is not valid UTF-8 at byte {place}; "):
        parse_json(body)


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b'{"text": NaN}',
        b'{"text": "a"}\f',
        b'{"text": "a"} {}',
        b'{"text": "a", "text": "b"}',
        b'{"text": "\\ud83d"}',
        b"[" * 100_000,
    ],
)
def test_what_is_not_json_is_refused(body):
    with pytest.raises(MalformedBody):
        parse_json(body)


def test_what_is_no_object_is_refused():
    with pytest.raises(RequestInvalid):
        parse_json(b"[1]")
