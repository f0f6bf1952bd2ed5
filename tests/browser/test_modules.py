"""What the page's modules compute from values, in one page that all these tests share."""

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PATIENCE_MS

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def page(browser, web_server) -> Iterator[Page]:
    """A page with `load`, which imports a module, and `scored`, which gives each byte one bit."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(web_server.url)
    page.evaluate(
        """async () => {
          const script = document.querySelector("script[type=module]").src;
          window.load = (name) => import(script.replace("score.js", `${name}.js`));
          const { ScoredText } = await load("scores");
          window.scored = (text) => {
            const bytes = new TextEncoder().encode(text);
            const all = (value) => new Array(bytes.length).fill(value);
            const scores = { log_prob_nats: all(-Math.LN2), rank: all(1), entropy_bits: all(1) };
            const sums = {
              num_bytes: bytes.length, num_chars: null, bits_per_byte: 1, byte_perplexity: 2,
              log_likelihood_nats: -Math.LN2 * bytes.length, is_greedy: true,
            };
            return new ScoredText("Text", bytes, { ...sums, bytes: scores });
          };
        }"""
    )
    yield page
    page.close()


@pytest.fixture(scope="module")
def call(page) -> Call:
    """Calls a function that a module of the page exports."""

    def call(module: str, name: str, *arguments: Any) -> Any:
        return page.evaluate(
            "async ([module, name, given]) => (await load(module))[name](...given)",
            [module, name, arguments],
        )

    return call


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


@pytest.mark.parametrize("end", [" ", "\n"])
def test_difference_of_long_texts_is_drawn(page, end):
    # A call of a function takes about 120,000 arguments in Chromium.
    words = [f"word{number % 1000}" for number in range(150_000)]
    drawn = page.evaluate(
        """async (texts) => {
          const { differenceOf } = await load("difference");
          const drawn = differenceOf(texts.map((text) => ({ scored: scored(text) })));
          return ["span.c", "ins"].map((name) => drawn.querySelectorAll(`.map ${name}`).length);
        }""",
        [end.join(words), end.join([*words, "new"])],
    )
    assert drawn == [150_000, 1]


def test_card_of_a_very_long_word_lists_its_beginning(page):
    card = page.evaluate(
        """async () => {
          const { details } = await load("details");
          const text = scored("日".repeat(70_000));
          const card = document.createElement("div");
          card.append(...details(text, text.units("words")[0], 0));
          return { rows: card.querySelectorAll("tbody tr").length, text: card.textContent };
        }"""
    )
    assert card["rows"] == 100
    assert "日" * 100 + "…" in card["text"]
    assert "210000.00 bits" in card["text"]
    assert "Its first 100 characters" in card["text"]


@pytest.mark.parametrize(
    ("probability", "shown"),
    [
        (0, "0%"),
        (0.0009, "<0.1%"),
        (0.001, "0.1%"),
        (0.5, "50%"),
        (0.99, "99%"),
        (0.9951, "99.5%"),
        (0.999, "99.9%"),
        (0.9991, ">99.9%"),
        (1, "100%"),
    ],
)
def test_share_is_shown_as_100_percent_only_if_it_is_exact(call, probability, shown):
    assert call("format", "percent", probability) == shown


def test_picture_of_a_long_text_says_which_part_it_shows(page):
    page.evaluate(
        """async () => {
          const { showTexts } = await load("shown");
          showTexts([scored("x".repeat(40_001))], { name: "model" }, {});
        }"""
    )
    with page.expect_download():
        page.evaluate("document.querySelector('[data-export=svg]').click()")
    expect(page.locator("#exported")).to_contain_text("Saved by your browser.")
    expect(page.locator("#exported")).to_contain_text("Text, part 1 of 2.")
