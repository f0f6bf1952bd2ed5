"""Errors of result lines are summed up by kind, and each reason to wait is printed once."""

import json

import pytest

from evascore.bulk.error_kinds import ErrorSummary, detail_of
from evascore.cli.bulk import AT_WORK, Waits


def line_of(error: dict) -> bytes:
    return json.dumps({"index": 0, "status": "FAILURE", "error": error}).encode()


def test_errors_that_differ_in_numbers_alone_are_one_kind():
    summary = ErrorSummary()
    for number in (7, 9):
        detail = f"The text has {number} bytes; the limit is 5."
        summary.add(line_of({"type": "text_too_large", "detail": detail, "line": number}), 0)
    summary.add(line_of({"type": "job_expired", "detail": "It expired."}), 41)
    first, second = summary.kinds()
    assert (first.count, first.first_line, first.detail) == (
        2,
        7,
        "The text has 7 bytes; the limit is 5.",
    )
    assert (second.type, second.first_line) == ("job_expired", 42)


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        ({"pointer": "/text", "detail": "is empty"}, "/text is empty"),
        (
            {"pointer": "", "detail": "is not a known field"},
            "a field of the line is not a known field",
        ),
        ({"pointer": "", "detail": "has more than 5 JSON values"}, "the line has more than 5"),
        ({"pointer": "", "detail": "the line must be a JSON object"}, "the line must be"),
        ({"pointer": "", "detail": "give exactly one of text, text_b64"}, "give exactly one"),
        ({"pointer": "", "detail": "The line is not valid JSON: x."}, "The line is not valid JSON"),
    ],
    ids=str,
)
def test_detail_names_its_place_once(error, detail):
    assert detail_of({"type": "invalid_request", "errors": [error]}).startswith(detail)


def test_reason_to_wait_is_said_once_until_a_result_comes(capsys):
    waits = Waits()
    for reason in ("No worker: 5 s", "No worker: 9 s", "The queue is full"):
        waits.note(reason)
    assert waits.reason == "The queue is full"
    waits.over()
    assert waits.reason == ""
    waits.note("The queue is full")
    assert capsys.readouterr().err.splitlines() == [
        "evascore: Waiting: No worker: 5 s",
        "evascore: Waiting: The queue is full",
        "evascore: Waiting: The queue is full",
    ]


def test_worker_at_work_is_a_reason_to_wait_only_before_the_first_result(capsys):
    waits = Waits()
    waits.ask = lambda: AT_WORK
    for _ in range(2):
        waits.look()
        waits.over()
    waits.ask = lambda: "No worker is ready"
    waits.look()
    assert capsys.readouterr().err.splitlines() == [
        f"evascore: Waiting: {AT_WORK}",
        "evascore: Waiting: No worker is ready",
    ]
