"""Swagger UI at /docs/ works under the policy of the pages, and its examples are answered."""

import json
import shlex
import subprocess


def test_request_can_be_tried_without_a_breach_of_the_policy(open_page, web):
    page = open_page(f"{web.url}/docs/")
    page.locator(".opblock-post", has_text="/score").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.locator("textarea").first.fill('{"text": "x"}')
    page.get_by_role("button", name="Execute").click()
    answer = page.locator(".live-responses-table").first
    answer.get_by_text('"QUEUED"').wait_for()
    assert answer.locator("tbody td.response-col_status").first.inner_text().startswith("202")


def test_examples_are_answered(open_page, service, tmp_path):
    (tmp_path / "book.txt").write_text("a line of a book\n" * 500)
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    commands = open_page(f"{service.url}/docs/").locator(".uses code").all_inner_texts()
    assert len(commands) == 6
    for command in commands:
        words = [*shlex.split(command), "--silent", "--write-out", "\n%{http_code}"]
        assert words[1].startswith(service.url)
        answer, _, status = subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.rpartition("\n")
        assert status in ("200", "202"), command
        assert json.loads(answer).get("state", "SUCCESS") != "FAILURE", command


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
