"""The options of the page: a context, next characters, long texts, and scores while typing."""

import math

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import score


@pytest.fixture
def ask(service):
    def ask(**body) -> dict:
        answer = httpx.post(f"{service.url}/score?wait=60", json=body, timeout=90)
        return answer.json()["result"]

    return ask


def bits_per_byte(page) -> str:
    return page.locator(".numbers strong").first.inner_text()


def test_text_is_scored_given_its_context(page, ask):
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Context that comes before").fill("The capital of France is")
    score(page, " Paris.")
    (given,) = ask(context="The capital of France is", continuation=" Paris.")["continuations"]
    assert bits_per_byte(page) == f"{given['bits_per_byte']:.3f}"
    assert bits_per_byte(page) != f"{ask(text=' Paris.')['bits_per_byte']:.3f}"


def test_likeliest_next_characters_are_listed(page, ask):
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("likeliest next characters").check()
    score(page, "The capital of Franc")
    expected = ask(text="The capital of Franc", next_chars=10)["next_chars"]["characters"]
    names = page.locator(".next th").all_inner_texts()
    assert len(names) == len(expected) == 10
    assert [name for name in names if len(name) == 1] == [
        character for character, _ in expected if character in names
    ]


def test_text_over_the_context_is_scored_in_windows(page, ask, service):
    text = "a line of a long text\n" * 250
    score(page, text)
    model = httpx.get(f"{service.url}/info").json()
    size = model["limits"]["max_text_bytes"]
    assert len(text) > size
    window = model["model"]["window_size"]
    whole = ask(text=text, window={"size": size, "stride": size // 2 // window * window})
    assert bits_per_byte(page) == f"{whole['bits_per_byte']:.3f}"
    expect(page.get_by_role("slider")).to_have_attribute("aria-valuemax", str(len(text)))


def test_long_text_is_scored_by_a_page_that_was_opened_before_the_model_was_ready(page):
    # Like a page whose service was away, it knows no model yet.
    page.route("**/info", lambda route: route.abort())
    page.reload()
    expect(page.locator("#model")).to_be_hidden()
    page.unroute("**/info")
    score(page, "a line of a long text\n" * 250)
    expect(page.get_by_role("slider")).to_have_attribute("aria-valuemax", str(22 * 250))


def test_longest_text_is_shown_in_parts(page):
    page.evaluate(
        """async () => {
          const script = document.querySelector("script[type=module]").src;
          const { HeatMap } = await import(script.replace("score.js", "heatmap.js"));
          const { paint } = await import(script.replace("score.js", "scales.js"));
          const { ScoredText } = await import(script.replace("score.js", "scores.js"));
          const bytes = new Uint8Array(100_000).fill(97);
          // A word crosses each end of a part, 8 characters on either side.
          for (let at = 8; at < bytes.length; at += 16) bytes[at] = 32;
          const all = (value) => new Array(bytes.length).fill(value);
          const result = { bytes: { log_prob_nats: all(-1), rank: all(2), entropy_bits: all(1) } };
          const scored = new ScoredText("Text", bytes, result);
          const map = new HeatMap(scored);
          window.showWords = () => map.paint(paint([scored], "byte", "words").views[0]);
          document.body.append(map.root);
        }"""
    )
    heat_map = page.get_by_role("slider")
    expect(heat_map.locator(".c")).to_have_count(40_000)
    page.get_by_role("button", name="Next part").click()
    expect(heat_map).to_have_attribute("aria-valuenow", "40001")
    heat_map.press("End")
    expect(heat_map.locator(".c")).to_have_count(20_000)
    expect(page.get_by_text("Characters 80,001 to 100,000 of 100,000")).to_be_visible()
    heat_map.press("Home")
    expect(heat_map).to_have_attribute("aria-valuenow", "1")
    expect(page.locator(".map .selected")).to_have_count(1)
    page.evaluate("window.showWords()")
    # Where the pointer was left, a character may have come to lie, whose card would cover a button.
    page.mouse.move(0, 0)
    for name, place in (
        ("Next part", "40,001 to 80,000"),
        ("Next part", "80,001 to 100,000"),
        ("Previous part", "40,001 to 80,000"),
        ("Previous part", "1 to 40,000"),
    ):
        page.get_by_role("button", name=name).click()
        expect(page.get_by_text(f"Characters {place} of 100,000")).to_be_visible()
        expect(page.locator(".map .selected")).to_have_count(8)


def test_typing_scores_again_and_keeps_the_focus(page, ask):
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Score again while I type").check()
    field = page.get_by_role("textbox", name="Text", exact=True)
    field.press_sequentially("typed")
    expect(page.locator(".map .c")).to_have_count(5)
    expect(field).to_be_focused()
    bits = -ask(text="typed")["log_likelihood_nats"] / math.log(2) / 5
    expect(page.locator(".numbers strong").first).to_have_text(f"{bits:.3f}")


def test_typing_waits_for_the_second_text_and_a_refusal_leaves_the_focus(page):
    page.get_by_text("Options", exact=True).click()
    page.get_by_role("button", name="Compare with a second text").click()
    page.get_by_label("Score again while I type").check()
    sent = []
    page.on("request", lambda request: sent.append(request) if "/score" in request.url else None)
    first, second = (
        page.get_by_role("textbox", name=f"{name} text") for name in ("First", "Second")
    )
    first.press_sequentially("typed")
    # Longer than the pause after which a text is scored.
    page.wait_for_timeout(1000)
    assert [request for request in sent if request.method == "POST"] == []
    second.fill("x" * 1_048_577)
    first.press("a")
    expect(page.get_by_role("alert")).to_contain_text("text_too_large")
    expect(first).to_be_focused()
