"""Swagger UI at /docs/ works under the policy of the pages."""


def test_request_can_be_tried_without_a_breach_of_the_policy(open_page, web):
    page = open_page(f"{web.url}/docs/")
    page.locator(".opblock-post", has_text="/score").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.locator("textarea").first.fill('{"text": "x"}')
    page.get_by_role("button", name="Execute").click()
    answer = page.locator(".live-responses-table").first
    answer.get_by_text('"QUEUED"').wait_for()
    assert answer.locator("tbody td.response-col_status").first.inner_text().startswith("202")


def test_injected_markup_runs_no_script(context, web):
    page = context.new_page()
    page.goto(f"{web.url}/docs/")
    page.locator(".opblock").first.wait_for()
    refused = page.evaluate(
        """async () => {
          const refused = [];
          const reply = new Promise((resolve) => {
            document.addEventListener("securitypolicyviolation", (event) => {
              refused.push(event.effectiveDirective);
              resolve();
            });
          });
          const place = document.createElement("div");
          document.body.append(place);
          place.innerHTML = "<img src='/nowhere' onerror='window.ran = true'>";
          await reply;
          return [refused[0], window.ran ?? false];
        }"""
    )
    assert refused == ["script-src-attr", False]
