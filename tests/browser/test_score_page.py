"""The page at `/`: texts in, heat map and numbers out, as a person sees them."""

import itertools
import math
import re

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import score

FAMILY = "👩‍👩‍👧"


@pytest.fixture
def scores(service):
    """Scores a text by the API, without the page."""

    def scores(text: str) -> dict:
        body = {"text": text, "outputs": ["bytes", "top_k"], "top_k": 5}
        answer = httpx.post(f"{service.url}/score?wait=30", json=body, timeout=60)
        return answer.json()["result"]

    return scores


def test_numbers_are_those_of_the_api(page, scores):
    score(page, "The quick brown fox")
    expected = scores("The quick brown fox")
    shown = page.locator(".numbers").inner_text()
    assert f"{expected['bits_per_byte']:.3f}" in shown
    assert f"−{-expected['log_likelihood_nats']:.2f} nats" in shown
    assert "19 bytes" in shown
    power = round(-expected["log_likelihood_nats"] / math.log(10))
    assert f"Probability of exactly this text: 1 in 10{power}." in "".join(shown.split("\n"))


def test_characters_carry_the_bits_of_their_bytes(page, scores):
    text = f"aé{FAMILY}\n한"
    score(page, text)
    page.get_by_label("Colours").select_option("Bits per character")
    nats = scores(text)["bytes"]["log_prob_nats"]
    bounds = [0]
    for character in ("a", "é", FAMILY, "\n", "한"):
        bounds.append(bounds[-1] + len(character.encode()))
    cells = page.locator(".map .c")
    assert cells.all_inner_texts() == ["a", "é", FAMILY, "↵", "한"]
    sums = [-sum(nats[a:b]) / math.log(2) for a, b in itertools.pairwise(bounds)]
    # The first step with which the highest of five characters is not beyond the scale.
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64) if max(sums) <= 12.5 * step)
    assert step > 1
    for index, bits in enumerate(sums):
        level = min(round(bits / step), 12)
        assert f"l{level}" in cells.nth(index).get_attribute("class").split()


def test_pointing_at_a_character_tells_rank_entropy_and_alternatives(page, scores):
    score(page, "hover")
    expected = scores("hover")
    page.locator(".map .c").nth(1).hover()
    card = page.locator(".card")
    shown = card.inner_text()
    assert f"Rank {expected['bytes']['rank'][1]} of 320" in shown
    assert f"entropy {expected['bytes']['entropy_bits'][1]:.2f} bits" in shown
    assert card.locator(".guesses tr").count() >= 5
    page.mouse.move(0, 0)
    card.wait_for(state="hidden")


def test_clicked_character_keeps_its_card_until_escape(page):
    score(page, "clicked")
    page.locator(".map .c").nth(2).click()
    page.mouse.move(0, 0)
    assert page.locator(".card").is_visible()
    page.keyboard.press("Escape")
    page.locator(".card").wait_for(state="hidden")


def test_two_texts_stand_side_by_side_and_are_compared(page, scores):
    page.get_by_role("button", name="Compare with a second text").click()
    page.get_by_role("textbox", name="First text").fill("abc abc")
    page.get_by_role("textbox", name="Second text").fill("qzx")
    page.get_by_role("button", name="Score", exact=True).click()
    page.locator(".verdict").wait_for()
    first, second = (scores(text)["bits_per_byte"] for text in ("abc abc", "qzx"))
    better = "first" if first < second else "second"
    assert f"the {better} text is more predictable by {abs(first - second):.3f} bits" in (
        page.locator(".verdict").inner_text()
    )
    # Where they are laid out, whatever they glide in from.
    places = page.locator(".column").evaluate_all(
        "all => all.map(x => [x.offsetLeft, x.offsetTop])"
    )
    (first_left, first_top), (second_left, second_top) = places
    assert first_top == second_top
    assert first_left < second_left


@pytest.mark.parametrize(
    ("body", "cells"),
    [
        pytest.param(b"Gr\xfc\xdf", ["G", "r", "FC", "DF"], id="latin-1"),
        pytest.param(b"\xe2\x82a\xed\xa0\x80", ["E2", "82", "a", "ED", "A0", "80"], id="cut short"),
        pytest.param(b"a\r\nb\xc3\xa9", ["a", "↵", "b", "é"], id="CRLF"),
        pytest.param(b"\xef\xbb\xbfa\x00", ["U+FEFF", "a", "U+0000"], id="BOM and NUL"),
    ],
)
def test_file_is_scored_byte_for_byte(page, body, cells):
    chooser = page.locator("[data-key=a] input[type=file]")
    chooser.set_input_files({"name": "file.bin", "mimeType": "", "buffer": body})
    page.get_by_text(f"{len(body)} of").wait_for()
    with page.expect_request(lambda request: request.method == "POST"):
        page.get_by_role("button", name="Score", exact=True).click()
    page.locator(".map").wait_for()
    assert page.locator(".map .c").all_inner_texts() == cells
    assert f"{len(body)} bytes" in page.locator(".numbers").inner_text()


def test_dropped_file_is_taken_and_does_not_replace_the_page(page, service):
    page.evaluate(
        """() => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.of(0xff, 0x41)], "dropped.bin"));
          document.querySelector("#text-a").dispatchEvent(
            new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }"""
    )
    page.get_by_text("dropped.bin").wait_for()
    page.get_by_role("button", name="Score", exact=True).click()
    page.locator(".map").wait_for()
    assert page.locator(".map .c").all_inner_texts() == ["FF", "A"]
    assert page.url == f"{service.url}/"


def test_file_that_is_too_large_is_refused_before_it_is_read(page):
    chooser = page.locator("[data-key=a] input[type=file]")
    chooser.set_input_files({"name": "big.txt", "mimeType": "", "buffer": b"x" * 1_048_577})
    page.get_by_text("big.txt has 1,048,577 bytes; the limit is 1,048,576.").wait_for()
    assert page.get_by_role("textbox", name="Text").input_value() == ""


def test_markup_in_a_text_is_text(page):
    score(page, "<img src=x onerror=alert(1)><b>&amp;")
    assert page.locator(".map").inner_text() == "<img src=x onerror=alert(1)><b>&amp;"
    assert page.locator(".map b, .map img").count() == 0


@pytest.fixture
def draw(page):
    """Draws the map of bytes alone: the model would take its time for that many."""

    def draw(content: bytes):
        page.evaluate(
            """async (content) => {
              const script = document.querySelector("script[type=module]").src;
              const { HeatMap } = await import(script.replace("score.js", "heatmap.js"));
              const { ScoredText } = await import(script.replace("score.js", "scores.js"));
              const bytes = Uint8Array.from(content);
              const result = {
                bytes: {
                  log_prob_nats: Array.from(bytes, (_, i) => -(i % 10)),
                  rank: Array.from(bytes, () => 1),
                  entropy_bits: Array.from(bytes, () => 1),
                },
                top_k: Array.from(bytes, () => [[97, -1]]),
              };
              const heatMap = new HeatMap(new ScoredText("Text", bytes, result));
              document.body.append(heatMap.root);
              heatMap.map.focus();
            }""",
            list(content),
        )
        return page.get_by_role("slider")

    return draw


def test_longest_text_is_drawn_and_stepped_through(draw):
    heat_map = draw((b"x" * 63 + b"\n") * 511 + b"x" * 63)
    for key in ("End", "ArrowUp", "ArrowLeft"):
        heat_map.press(key)
    assert heat_map.locator(".c").count() == 32_767
    # 511 lines of 64 and a last one of 63: up from its end, and one to the left.
    expect(heat_map).to_have_attribute("aria-valuenow", str(511 * 64 - 2))


@pytest.mark.parametrize("width", [1280, 375])
def test_end_of_a_long_line_is_brought_into_view(draw, page, width):
    page.set_viewport_size({"width": width, "height": 740})
    draw("日".encode() * 10_922)
    page.keyboard.press("End")
    # The lines near the screen are laid out meanwhile.
    page.evaluate(
        """async () => {
          for (let frame = 0; frame < 20; frame++) await new Promise(requestAnimationFrame);
        }"""
    )
    expect(page.locator(".map .selected")).to_be_in_viewport()
    expect(page.locator(".card")).to_be_in_viewport(ratio=1)


def test_model_is_named_and_the_demo_called_a_demo(page):
    page.locator("#model").wait_for()
    page.get_by_role("button", name="a little code").click()
    page.locator(".how").wait_for()
    name = "small"  # the folder of the random weights
    assert re.search(rf"Scored by {name}\b", page.locator(".how").inner_text())


def test_every_character_is_in_the_table(page):
    text = "ab " * 40
    score(page, text)
    page.get_by_text("As a table").click()
    rows = page.locator(".as-table tbody tr")
    expect(rows).to_have_count(100)
    page.get_by_role("button", name="Show 20 more of 120").click()
    expect(rows).to_have_count(120)
    assert rows.nth(2).locator("th").inner_text() == "space"
