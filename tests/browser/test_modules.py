"""What the page's modules compute from values, in one page that all these tests share."""

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call(browser, web_server) -> Iterator[Call]:
    """Calls a function that a module of the page exports."""
    page = browser.new_page()
    page.goto(web_server.url)

    def call(module: str, name: str, *arguments: Any) -> Any:
        return page.evaluate(
            """async ([module, name, given]) => {
              const script = document.querySelector("script[type=module]").src;
              const found = await import(script.replace("score.js", `${module}.js`));
              return found[name](...given);
            }""",
            [module, name, arguments],
        )

    yield call
    page.close()


# Quotation marks, the characters that begin formulas, and what a cell hides or splits.
UNITS = ['"', 'say "yes"', "=1+1", "+x", "-x", "@x", "=", "-", "'", "'tis", "a\tb", "a\nb", "a,b"]
ROWS = [["text", "unit", "bits"], *(["Text", unit, "-0.5"] for unit in UNITS)]


def test_csv_keeps_every_unit_and_no_formula(call):
    rows = list(csv.reader(io.StringIO(call("exports", "csv", ROWS), newline="")))
    guarded = {"=1+1", "+x", "-x", "@x"}
    expected = [f"'{unit}" if unit in guarded else unit for unit in UNITS]
    assert [unit for _, unit, _ in rows[1:]] == expected
    assert {bits for _, _, bits in rows[1:]} == {"-0.5"}


def test_table_for_a_spreadsheet_has_one_row_per_unit_and_no_formula(call):
    lines = call("exports", "tsv", ROWS).split("\n")
    assert len(lines) == len(ROWS)
    rows = list(csv.reader(lines, delimiter="\t"))
    guarded = {"=1+1", "+x", "-x", "@x", "'", "'tis"}
    expected = [f"'{unit}" if unit in guarded else unit for unit in UNITS]
    spaced = [unit.replace("\t", " ").replace("\n", " ") for unit in expected]
    assert [unit for _, unit, _ in rows[1:]] == spaced
    assert {bits for _, _, bits in rows[1:]} == {"-0.5"}
