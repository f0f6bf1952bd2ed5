"""Where a text goes: into one POST and nowhere else; and that nothing comes from elsewhere."""

from urllib.parse import urlsplit

from playwright.sync_api import Request

from tests.browser.conftest import score
from tests.conftest import wait_until

MARK = "Rumpelstilzchen"


def test_text_is_in_the_body_of_one_post_and_nowhere_else(context, open_page, service):
    requests: list[Request] = []
    context.on("request", lambda request: requests.append(request))
    page = open_page(service.url)
    score(page, MARK)
    assert {urlsplit(request.url).netloc for request in requests} == {urlsplit(service.url).netloc}
    assert [r.method for r in requests if MARK in (r.post_data or "")] == ["POST"]
    assert not [r for r in requests if MARK in r.url or MARK in str(r.headers)]
    assert MARK not in page.url
    assert MARK not in page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert page.evaluate("indexedDB.databases().then((found) => found.length)") == 0
    assert context.cookies() == []
    assert MARK not in service.log.read_text()


def test_result_is_erased_once_the_page_has_it(page, service):
    with page.expect_response(lambda answer: answer.request.method == "POST") as answered:
        score(page, "forget me")
    with service.client() as client:
        path = answered.value.headers["location"]
        wait_until(lambda: client.get(path).status_code == 410)


def test_policy_refuses_markup_scripts_and_requests_elsewhere(context, service):
    # Not by `open_page`, to which a refusal by the policy is a failure.
    page = context.new_page()
    page.goto(service.url)
    refused = page.evaluate(
        """async () => {
          const refused = [];
          const told = new Promise((resolve) => {
            document.addEventListener("securitypolicyviolation", (event) => {
              refused.push(event.effectiveDirective);
              if (refused.length === 3) resolve();
            });
          });
          try { document.body.innerHTML += "<b>"; } catch {}
          const style = document.createElement("style");
          style.textContent = "body { display: none }";
          document.head.append(style);
          await fetch("http://127.0.0.2:9/").catch(() => {});
          await told;
          return refused.sort();
        }"""
    )
    assert refused == ["connect-src", "require-trusted-types-for", "style-src-elem"]


def test_choice_of_theme_is_all_that_is_stored(page):
    page.get_by_role("button", name="Dark theme").click()
    score(page, MARK)
    assert page.evaluate("({...localStorage})") == {"evascore.theme": "dark"}
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
