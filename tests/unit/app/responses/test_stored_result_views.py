"""Errors of failed items become problem objects while a stored result is sent."""

import orjson
import pytest

from app.responses.views import error_lines, result_lines, with_problems

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


LINES = [
    {"index": 0, "status": "SUCCESS", "result": {"v": list(range(50_000))}},
    {"index": 1, "status": "FAILURE", "custom_id": "x" * 128, "error": ERROR},
    {"index": 2, "status": "SUCCESS", "custom_id": '"status":"FAILURE"', "result": {}},
    {"index": 3, "status": "REVOKED", "error": ERROR},
]
PART = b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in LINES)


@pytest.mark.parametrize("size", [1, 100, 65_536, 10**7])
@pytest.mark.parametrize(("start", "stop"), [(0, 4), (1, 3), (0, 1), (3, 9), (2, 2)])
def test_lines_of_a_part_are_given_from_one_to_the_other(size, start, stop):
    pieces = [PART[at : at + size] for at in range(0, len(PART), size)]
    found = b"".join(result_lines(pieces, start, stop)).splitlines(keepends=True)
    wanted = LINES[start:stop]
    assert [orjson.loads(line)["index"] for line in found] == [line["index"] for line in wanted]
    for line, original in zip(map(orjson.loads, found), wanted, strict=True):
        if "error" in original:
            assert line["error"]["type"] == "out_of_memory"
        else:
            assert line == original


@pytest.mark.parametrize("size", [1, 100, 65_536, 10**7])
def test_lines_of_errors_leave_the_large_ones_out(size):
    pieces = [PART[at : at + size] for at in range(0, len(PART), size)]
    found = map(orjson.loads, b"".join(error_lines(pieces)).splitlines())
    assert [(line["index"], line["error"]["type"]) for line in found] == [
        (1, "out_of_memory"),
        (3, "out_of_memory"),
    ]


def test_large_line_is_passed_on_before_it_is_read_whole():
    pieces = iter([PART[at : at + 1_000] for at in range(0, len(PART), 1_000)])
    lines = result_lines(pieces, 0, 1)
    assert sum(len(next(lines)) for _ in range(10)) >= 9_000
    assert len(list(pieces)) > 100
