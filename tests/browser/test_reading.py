"""The pages for every reader: by keyboard alone, without colour, on a phone, by a screen reader."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import score

AA_CONTRAST = 4.5
# Ink and ground of every level; as relative luminances (WCAG 2.2).
LEVELS = """() => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(Number)
      .map((x) => x / 255).map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = getComputedStyle(document.body).backgroundColor;
  return [...document.querySelectorAll("#legend .c")].map((node) => {
    const style = getComputedStyle(node);
    const ground = style.backgroundColor === "rgba(0, 0, 0, 0)" ? paper : style.backgroundColor;
    return { ink: luminance(style.color), ground: luminance(ground), level: node.className };
  });
}"""


def assert_no_violations(page: Page) -> None:
    # The checker itself writes markup, which the page's policy would refuse.
    found = Axe().run(page).response["violations"]
    assert found == [], [(v["id"], v["nodes"][0]["html"]) for v in found]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_checker_finds_nothing(page, theme):
    page.emulate_media(color_scheme=theme)
    page.get_by_role("button", name="the same words in another order").click()
    page.locator(".verdict").wait_for()
    for summary in page.locator("summary").all():
        summary.click()
    page.locator(".map .c").first.click()
    assert_no_violations(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_checker_finds_nothing_in_the_status(open_page, service, theme):
    page = open_page(f"{service.url}/status")
    page.emulate_media(color_scheme=theme)
    expect(page.locator("#live")).to_contain_text("Live.")
    assert_no_violations(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_checker_finds_nothing_in_the_description_of_the_api(open_page, service, theme):
    page = open_page(f"{service.url}/docs/")
    page.emulate_media(color_scheme=theme)
    page.locator(".opblock").first.wait_for()
    assert_no_violations(page)
    page.locator(".opblock-post", has_text="/score").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").wait_for()
    assert_no_violations(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_checker_finds_nothing_at_a_wrong_address(open_page, service, theme):
    page = open_page(f"{service.url}/nowhere")
    page.emulate_media(color_scheme=theme)
    expect(page.get_by_role("heading", level=1)).to_contain_text("no page at this address")
    assert_no_violations(page)
    page.get_by_role("link", name="Score a text").click()
    expect(page).to_have_url(f"{service.url}/")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_levels_differ_by_lightness_and_keep_their_ink_readable(page, theme):
    page.emulate_media(color_scheme=theme)
    levels = page.evaluate(LEVELS)
    grounds = [level["ground"] for level in levels]
    assert len(grounds) == 13
    assert grounds == sorted(grounds, reverse=theme == "light")
    assert len(set(grounds)) == 13
    for level in levels:
        dark, light = sorted((level["ink"], level["ground"]))
        assert (light + 0.05) / (dark + 0.05) >= AA_CONTRAST, level


def test_bars_say_in_height_what_the_ground_says_in_lightness(page):
    heights = page.locator("#legend .c").evaluate_all(
        "nodes => nodes.map((node) => getComputedStyle(node).getPropertyValue('--level'))"
    )
    assert heights == [str(level) for level in range(13)]
    sizes = page.locator("#legend .c").evaluate_all(
        "nodes => nodes.map((node) => getComputedStyle(node).backgroundSize.split(', ')[0])"
    )
    assert len(set(sizes)) == 13


def test_everything_is_done_by_keyboard_alone(page):
    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "document.activeElement.innerText || document.activeElement.ariaLabel"
                " || document.activeElement.id"
            )
            if name in focused:
                return
        pytest.fail(f"Tab does not reach {name}")

    tab_to("text-a")
    page.keyboard.type("one two\nthree")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("heading", name="Scores")).to_be_focused()
    slider = page.get_by_role("slider")
    # Only the choices of colours and units are before it.
    for choice in ("Colours", "Units"):
        page.keyboard.press("Tab")
        expect(page.get_by_label(choice)).to_be_focused()
    page.keyboard.press("Tab")
    expect(slider).to_be_focused()
    page.keyboard.press("ArrowRight")
    assert page.locator(".card").is_visible()
    assert slider.get_attribute("aria-valuetext").startswith("o: ")
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext").startswith("n: ")
    page.keyboard.press("ArrowDown")
    assert slider.get_attribute("aria-valuetext").startswith("h: ")
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuenow") == "13"
    page.keyboard.press("Escape")
    assert page.locator(".card").is_hidden()
    expect(slider).to_be_focused()
    tab_to("As a table")
    page.keyboard.press("Enter")
    expect(page.locator(".as-table tbody tr")).to_have_count(13)


def test_scores_are_announced(page):
    score(page, "heard")
    expect(page.get_by_role("status")).to_contain_text("Text: ")
    expect(page.get_by_role("status")).to_contain_text("bits per byte, most surprising ")


@pytest.mark.parametrize("width", [390, 320])
@pytest.mark.parametrize("path", ["/", "/status", "/docs/"])
def test_nothing_runs_over_the_edge_of_a_phone(page, service, width, path):
    page.set_viewport_size({"width": width, "height": 700})
    page.goto(service.url + path)
    if path == "/":
        score(page, "a" * 300 + " and words with bytes \x00\x01 in boxes " + "b" * 80)
        page.locator(".map .c").nth(200).click()
        card = page.locator(".card").bounding_box()
        assert card["y"] + card["height"] <= 701
        cell = page.locator(".map .c").nth(200).bounding_box()
        assert cell["y"] + cell["height"] <= card["y"]
    if path == "/docs/":
        page.locator(".opblock-tag small").first.wait_for()
        for each in page.locator(".opblock-tag small").all():
            assert each.bounding_box()["width"] > width / 2
        page.locator(".opblock-post", has_text="/score").first.click()
        page.get_by_role("button", name="Try it out").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_chosen_theme_overrules_that_of_the_system(page):
    def ground() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    page.emulate_media(color_scheme="dark")
    dark = ground()
    button = page.get_by_role("button", name="Dark theme")
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    light = ground()
    assert light != dark
    page.emulate_media(color_scheme="light")
    assert ground() == light
    expect(button).to_have_attribute("aria-pressed", "false")
