"""The views of a result: scales, words, the overview, ranks, the difference of two texts."""

import math
import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import score

CHINESE = "你好，世界。今天天气很好，我们去公园散步吧。"
SCALES = ["byte", "unit", "relative", "rank", "excess"]


def levels(page: Page) -> list[int]:
    classes = page.locator(".map .c").evaluate_all("nodes => nodes.map((node) => node.className)")
    return [int(re.search(r"\bl(\d+)", name)[1]) for name in classes]


def scored(service, **item) -> dict:
    body = {"outputs": ["bytes"], **item}
    return httpx.post(f"{service.url}/score?wait=30", json=body, timeout=60).json()["result"]


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_says_what_its_colours_mean(page, scale):
    score(page, "The quick brown fox jumps over the lazy dog.")
    page.locator("#scale").select_option(scale)
    entries = page.locator("#legend .c")
    assert set(levels(page)) <= {
        int(re.search(r"\bl(\d+)", name)[1])
        for name in entries.evaluate_all("nodes => nodes.map((node) => node.className)")
    }
    assert page.locator("#caption").inner_text() != ""


def test_text_of_three_bytes_a_character_is_no_dark_block(page):
    score(page, CHINESE)
    for scale in ("byte", "unit"):
        page.locator("#scale").select_option(scale)
        shown = levels(page)
        assert len(set(shown)) >= 3
        assert sum(level >= 11 for level in shown) < len(shown) / 2
    page.locator("#scale").select_option("relative")
    assert len(set(levels(page))) >= 10


def test_relative_scale_has_equally_many_characters_at_each_level(page):
    score(page, "Every one of these characters has some bits of its own, more or less.")
    page.locator("#scale").select_option("relative")
    shown = levels(page)
    assert {0, 12} <= set(shown)
    assert max(shown.count(level) for level in set(shown)) <= len(shown) / 13 + 3


def test_ranks_have_the_classes_of_gltr(page, service):
    text = "The quick brown fox jumps over the lazy dog."
    score(page, text)
    ranks = scored(service, text=text)["bytes"]["rank"]
    classes = [(1, 1), (2, 5), (6, 20), (21, 320)]
    counts = [sum(low <= rank <= high for rank in ranks) for low, high in classes]
    shown = page.locator(".ranks td:last-child").all_inner_texts()
    assert [int(count) for count in shown] == counts
    page.locator("#scale").select_option("rank")
    expect(page.locator("#caption")).to_have_text(
        "Highest rank among the bytes of each character: "
        "1 is the likeliest of the model’s 320 ids (256 bytes and 64 special ids)"
    )
    expected = [next(i for i, (_, high) in enumerate(classes) if rank <= high) for rank in ranks]
    assert levels(page) == [4 * i for i in expected]


def test_words_are_stepped_through_and_carry_the_spans_of_the_api(page, service):
    text = "one two  three\nfour"
    score(page, text)
    page.get_by_label("Units").select_option("Words")
    slider = page.get_by_role("slider")
    expect(slider).to_have_attribute("aria-valuemax", "4")
    spans = scored(service, text=text, spans="words")["spans"]
    slider.focus()
    for span in spans:
        page.keyboard.press("ArrowRight")
        selected = page.locator(".map .selected")
        assert selected.count() == span["end"] - span["start"]
        expect(page.locator(".card strong")).to_have_text(
            f"{span['bits_per_byte'] * span['num_bytes']:.2f} bits"
        )


def test_overview_moves_the_map_and_marks_what_is_on_the_screen(page):
    score(page, "".join(f"line {number} of many\n" for number in range(200)))
    page.locator(".overview svg").scroll_into_view_if_needed()
    box = page.locator(".overview svg").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
    slider = page.get_by_role("slider")
    at = int(slider.get_attribute("aria-valuenow")) / int(slider.get_attribute("aria-valuemax"))
    assert at == pytest.approx(0.75, abs=0.01)
    expect(page.locator(".map .selected")).to_be_in_viewport()
    # It stays on the screen as a minimap, and the mark has followed.
    expect(page.locator(".overview svg")).to_be_in_viewport()
    expect(page.locator(".overview .window")).not_to_have_attribute("x", "0.00")
    x, width = (
        float(page.locator(".overview .window").get_attribute(name)) for name in ("x", "width")
    )
    assert x <= 0.75 * 720 <= x + width


def test_lines_off_the_screen_are_drawn_for_pictures_of_the_whole_page(page):
    score(page, "".join(f"line {number} of many\n" for number in range(200)))
    drawn = page.locator(".map .c").evaluate_all(
        "nodes => nodes.map((node) => node.checkVisibility({ contentVisibilityAuto: true }))"
    )
    assert len(drawn) > 2000
    assert all(drawn)


def test_texts_of_different_scripts_are_compared_per_character(page, service):
    texts = ("Hello, world. How are you?", CHINESE)
    page.get_by_role("button", name="Compare with a second text").click()
    for name, text in zip(("First text", "Second text"), texts, strict=True):
        page.get_by_role("textbox", name=name).fill(text)
    page.get_by_role("button", name="Score", exact=True).click()
    first, second = (
        -result["log_likelihood_nats"] / result["num_chars"] / math.log(2)
        for result in (scored(service, text=text) for text in texts)
    )
    better = "first" if first < second else "second"
    expect(page.locator(".verdict")).to_contain_text(
        f"per character, the {better} text is more predictable by {abs(first - second):.3f} bits"
    )


def test_difference_of_two_texts_shows_what_is_shared_and_what_is_new(page):
    page.get_by_role("button", name="Compare with a second text").click()
    page.get_by_role("textbox", name="First text").fill("the cat sat on the mat")
    page.get_by_role("textbox", name="Second text").fill("the dog sat on the red mat")
    page.get_by_role("button", name="Score", exact=True).click()
    page.locator(".verdict").wait_for()
    difference = page.locator(".difference-map")
    assert difference.locator("del").all_inner_texts() == [" cat"]
    assert difference.locator("ins").all_inner_texts() == [" dog", " red"]
    assert difference.locator(".c").all_inner_texts() == ["the", " sat", " on", " the", " mat"]
    # Words that differ only in a byte that is not UTF-8.
    for key, city in (("a", b"K\xf6ln"), ("b", b"K\xfcln")):
        chooser = page.locator(f"[data-key={key}] input[type=file]")
        chooser.set_input_files({"name": "f.txt", "mimeType": "", "buffer": b"aus " + city})
    expect(page.locator(".editor .file:visible")).to_have_count(2)
    page.get_by_role("button", name="Score", exact=True).click()
    expect(difference.locator("ins")).to_have_text([" KFCln"])
    expect(difference.locator("del")).to_have_text([" KF6ln"])
