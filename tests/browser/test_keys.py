"""The pages of a service that needs API keys: the key is entered, sent and stored nowhere."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, Request, expect

from contract.api_keys import new_key
from contract.store.connection.broker import connect
from contract.store.key_store import KeyStore
from tests.conftest import wait_until
from tests.web import WebServer


@pytest.fixture(scope="module")
def keyed(web_redis, tmp_path_factory) -> Iterator[WebServer]:
    """A web server that needs keys; no worker."""
    folder = tmp_path_factory.mktemp("keyed")
    server = WebServer(folder, web_redis.url, auth="keys").start()
    yield server
    assert server.stop() == 0


def token_of(keyed: WebServer, *scopes, **limits) -> str:
    """The token of a new key that the server knows."""
    token, key = new_key("page", scopes, **limits)
    with connect(keyed.settings) as client, keyed.client() as http:
        KeyStore(client).add(key)
        headers = {"Authorization": f"Bearer {token}"}
        wait_until(lambda: http.get("/score/x", headers=headers).status_code != 401)
    return token


@pytest.fixture
def page(open_page, keyed) -> Page:
    return open_page(keyed.url)


def enter(page: Page, token: str) -> None:
    page.get_by_label("API key").fill(token)
    page.get_by_label("API key").blur()


def submit(page: Page) -> None:
    page.get_by_role("textbox", name="Text").fill("open sesame")
    page.get_by_role("button", name="Score", exact=True).click()


def test_service_without_keys_has_no_field(open_page, web):
    page = open_page(web.url)
    page.get_by_role("button", name="Score", exact=True).wait_for()
    expect(page.get_by_label("API key")).to_have_count(0)


def test_every_request_about_a_text_carries_the_key_and_nothing_keeps_it(
    context: BrowserContext, page: Page, keyed: WebServer
):
    token = token_of(keyed, "score")
    requests: list[Request] = []
    context.on("request", lambda request: requests.append(request))
    enter(page, token)
    with page.expect_response(lambda answer: answer.request.method == "POST") as answered:
        submit(page)
    assert answered.value.status == 202
    path = answered.value.headers["location"]
    expect(page.get_by_role("status")).to_contain_text("Waiting for its turn")
    # The job belongs to the key that submitted it.
    enter(page, "two words")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_contain_text("The service does not keep the text.")
    with keyed.client() as http:
        headers = {"Authorization": f"Bearer {token}"}
        wait_until(lambda: http.get(path, headers=headers).status_code == 410)
    about = [each for each in requests if "/score" in each.url and "/static/" not in each.url]
    expect(page.get_by_role("alert")).to_be_hidden()
    assert {each.method for each in about} == {"POST", "GET", "DELETE"}
    assert {each.all_headers().get("authorization") for each in about} == {f"Bearer {token}"}
    assert not [each for each in requests if token in each.url or token in (each.post_data or "")]
    assert page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])") == "[{},{}]"
    assert page.evaluate("indexedDB.databases().then((found) => found.length)") == 0
    assert context.cookies() == []
    page.reload()
    expect(page.get_by_label("API key")).to_have_value("")


def test_page_without_a_key_says_that_one_is_needed(page):
    submit(page)
    expect(page.get_by_role("alert")).to_contain_text("This service needs an API key")
    expect(page.get_by_label("API key")).to_be_focused()
    expect(page.locator("#key-note")).to_contain_text("This service needs an API key")
    enter(page, "evs_1")
    expect(page.locator("#key-note")).to_contain_text("Kept in this tab")


@pytest.mark.parametrize("token", ["evs_000000000000_" + "a" * 32, "schlüssel", "two words"])
def test_wrong_key_is_refused_in_words(page, token):
    enter(page, token)
    submit(page)
    expect(page.get_by_role("alert")).to_contain_text("The API key was refused")


def test_typing_goes_on_in_the_text_when_the_key_is_missing_or_refused(page):
    note = page.locator("#key-note")
    text = page.get_by_role("textbox", name="Text", exact=True)
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Score again while I type").check()
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request) if "/score" in request.url else None)
    text.press_sequentially("no key")
    expect(note).to_contain_text("This service needs an API key")
    enter(page, "evs_000000000000_" + "a" * 32)
    assert sent == []
    text.press_sequentially(", wrong key")
    expect(note).to_contain_text("The API key was refused")
    expect(text).to_be_focused()


def test_key_that_may_not_score_is_shown_as_an_error(page, keyed):
    enter(page, token_of(keyed, "metrics"))
    submit(page)
    expect(page.get_by_role("alert")).to_contain_text("This API key may not score texts")
    expect(page.get_by_role("alert")).to_contain_text("scope “score”")


def test_used_up_quota_is_reported_and_counted_down(page, keyed):
    enter(page, token_of(keyed, "score", requests_per_minute=1))
    submit(page)
    expect(page.get_by_role("status")).to_contain_text("Waiting for its turn")
    page.get_by_role("button", name="Score again").click()
    status = page.get_by_role("status")
    expect(status).to_contain_text("The quota of this API key is used up")
    expect(status).to_contain_text(re.compile(r"Trying again in \d+ s"))


def test_status_shows_nothing_before_a_key_with_metrics_is_entered(open_page, keyed):
    page = open_page(f"{keyed.url}/status")
    expect(page.locator("#live")).to_have_text("Enter an API key with the scope metrics.")
    expect(page.locator("main [data-field]").last).to_be_attached()
    for field in page.locator("main [data-field], #workers").all():
        expect(field).to_be_hidden()
    expect(page.get_by_role("alert")).to_be_hidden()
    enter(page, token_of(keyed, "score"))
    expect(page.get_by_role("alert")).to_contain_text("This API key may not read the status")
    enter(page, token_of(keyed, "metrics"))
    expect(page.locator("#live")).to_contain_text("Live.")
    for section in ("#figures", "[data-field='totals.jobs_failed']", "#no-workers"):
        expect(page.locator(section)).to_be_visible()


def test_look_up_finds_what_a_key_with_one_scope_may_read(open_page, keyed):
    token = token_of(keyed, "bulk")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson"}
    with keyed.client() as http:
        batch = http.post("/batches", content=b'{"text": "one"}\n', headers=headers).json()["id"]
    page = open_page(f"{keyed.url}/status")
    found = page.locator("#found")

    def look_up(name: str, *scopes: str) -> None:
        enter(page, token_of(keyed, *scopes) if scopes else token)
        page.get_by_label("ID", exact=True).fill(name)
        page.get_by_role("button", name="Look up").click()

    look_up(batch)
    expect(found).to_contain_text("of 1")
    look_up("nobody")
    expect(found).to_contain_text("No batch of your key has this ID. The key may not read jobs")
    look_up("nobody", "score")
    expect(found).to_contain_text("No job of your key has this ID. The key may not read batches")
    look_up("nobody", "metrics")
    expect(found).to_contain_text("This API key may not score texts")


def test_refused_key_is_not_sent_again_and_again(open_page, keyed):
    page = open_page(f"{keyed.url}/status")
    page.clock.install()
    enter(page, token_of(keyed, "score"))
    expect(page.locator("#live")).to_have_text("Enter another API key.")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(10_000)
    assert asked == []


def test_description_can_be_tried_with_a_key(open_page, keyed):
    page = open_page(f"{keyed.url}/docs/")
    page.get_by_role("button", name="Authorize").click()
    form = page.locator(".auth-container")
    form.locator("input").fill(token_of(keyed, "score"))
    form.get_by_role("button", name="Apply credentials").click()
    form.get_by_role("button", name="Close").click()
    page.locator(".opblock-post", has_text="/score").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.locator("textarea").first.fill('{"text": "x"}')
    page.get_by_role("button", name="Execute").click()
    answer = page.locator(".live-responses-table").first
    answer.get_by_text('"QUEUED"').wait_for()
    assert answer.locator("tbody td.response-col_status").first.inner_text().startswith("202")
