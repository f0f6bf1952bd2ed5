"""The table of statuses: complete, and listed in docs/api.md."""

import re

import pytest

from app.responses.problems import STATUS_BY_CODE, http_problem, problem
from contract.errors import BY_CODE, TextTooLarge, error_body
from contract.settings import REPOSITORY


def test_every_error_that_can_be_raised_has_a_status():
    assert set(BY_CODE) <= set(STATUS_BY_CODE)


@pytest.mark.parametrize("code", sorted(STATUS_BY_CODE))
def test_every_code_is_documented_with_its_status(code):
    documented = (REPOSITORY / "docs" / "api.md").read_text()
    row = re.search(rf"^\| `{code}` \| (\d+) \|", documented, re.MULTILINE)
    assert row is not None, f"docs/api.md has no row for {code}"
    assert int(row[1]) == STATUS_BY_CODE[code]


def test_documented_codes_exist():
    documented = (REPOSITORY / "docs" / "api.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| \d+ \|", documented, re.MULTILINE)
    assert set(rows) == set(STATUS_BY_CODE)


def test_problem_carries_code_status_and_details():
    error = TextTooLarge("too long", limit_bytes=10, actual_bytes=11)
    assert problem(error_body(error)) == {
        "type": "text_too_large",
        "title": "Text too large",
        "status": 413,
        "detail": "too long",
        "retryable": False,
        "limit_bytes": 10,
        "actual_bytes": 11,
    }


@pytest.mark.parametrize(
    ("status", "answered"),
    [(400, 400), (404, 404), (405, 405), (414, 400), (431, 431), (500, 500), (501, 501)],
)
def test_status_of_http_itself_has_a_problem(status, answered):
    body = http_problem(status)
    assert body["status"] == answered
    assert re.fullmatch(r"[a-z_]+", body["type"])
    assert body["detail"]
