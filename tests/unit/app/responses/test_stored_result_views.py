"""Errors of failed items become problem objects while a stored result is sent."""

import orjson
import pytest

from app.responses.views import with_problems

ERROR = {"code": "out_of_memory", "message": "too big", "retryable": True}
ITEMS = [
    {"custom_id": '"error":\\"', "result": {"v": '{"error":'}},
    {"custom_id": "\0" * 128, "error": ERROR},
    {"result": {"v": list(range(100_000))}},
    {"error": {**ERROR, "message": "x" * 5_000}},
    {"custom_id": "last", "error": ERROR},
]
TEXT = b'{"items":[\n' + b",\n".join(map(orjson.dumps, ITEMS)) + b'\n],"model":{"name":"m"}}'


@pytest.mark.parametrize("size", [1, 7, 1_000, 65_536, 10**7])
def test_only_failed_items_are_changed_however_the_text_is_cut(size):
    pieces = [TEXT[at : at + size] for at in range(0, len(TEXT), size)]
    found = orjson.loads(b"".join(with_problems(pieces)))
    assert found["model"] == {"name": "m"}
    for item, original in zip(found["items"], ITEMS, strict=True):
        if "error" in original:
            assert item["error"]["type"] == "out_of_memory"
            assert item["error"]["detail"] == original["error"]["message"]
            assert item.get("custom_id") == original.get("custom_id")
        else:
            assert item == original
