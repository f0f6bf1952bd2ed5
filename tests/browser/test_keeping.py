"""Results saved as files, links to a text, and texts that survive a reload."""

import base64
import csv
import io
import json
import math
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Page, Request, expect

from tests.browser.conftest import score

TEXT = 'Grüße, "Welt"\n<b>&amp;</b> 한 = 1'
PNG = b"\x89PNG\r\n\x1a\n"


def taken(page: Page, kind: str) -> bytes:
    with page.expect_download() as download:
        page.locator(f"[data-export={kind}]").click()
    assert download.value.suggested_filename == f"evascore.{kind}"
    return Path(download.value.path()).read_bytes()


@pytest.fixture
def result(page):
    score(page, TEXT)
    return page


def test_csv_has_all_characters_and_their_bits(result):
    rows = list(csv.DictReader(io.StringIO(taken(result, "csv").decode(), newline="")))
    assert "".join(row["unit"] for row in rows) == TEXT
    total = json.loads(taken(result, "json"))["texts"][0]["result"]["log_likelihood_nats"]
    bits = math.fsum(float(row["bits"]) for row in rows)
    assert bits == pytest.approx(-total / math.log(2), abs=1e-4 * len(rows))


def test_json_has_the_text_and_the_result_of_the_api(result):
    saved = json.loads(taken(result, "json"))
    assert saved["model"]["name"] == "small"
    (text,) = saved["texts"]
    assert text["text"] == TEXT
    assert len(text["result"]["bytes"]["rank"]) == len(TEXT.encode())


def test_pictures_show_every_character(result):
    picture = ElementTree.fromstring(taken(result, "svg"))
    shown = [node.text for node in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert shown == [character if character != "\n" else "↵" for character in TEXT]
    assert taken(result, "png").startswith(PNG)


def test_html_page_stands_alone(result, context, tmp_path):
    saved = tmp_path / "saved.html"
    saved.write_bytes(taken(result, "html"))
    requests: list[Request] = []
    page = context.new_page()
    page.on("request", lambda request: requests.append(request))
    page.goto(saved.as_uri())
    assert [request.url for request in requests] == [saved.as_uri()]
    assert page.locator(".map .c").count() == len(TEXT)
    assert page.locator(".map b").count() == 0
    grounds = page.locator(".map .c").evaluate_all(
        "nodes => nodes.map((node) => getComputedStyle(node).backgroundColor)"
    )
    assert len(set(grounds)) > 1


def test_table_is_copied(result, context):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    result.get_by_role("button", name="Copy for a spreadsheet").click()
    result.get_by_text("Copied; paste it").wait_for()
    lines = result.evaluate("navigator.clipboard.readText()").splitlines()
    assert len(lines) == 1 + len(TEXT)


def test_link_brings_the_text_and_no_server_sees_it(result, context, open_page, service):
    result.get_by_role("button", name="Copy a link to the text").click()
    result.get_by_text("The text is in the part after #").wait_for()
    address = result.get_by_label("Link").input_value()
    requests: list[Request] = []
    context.on("request", lambda request: requests.append(request))
    page = open_page(address)
    page.locator(".map .c").first.wait_for()
    assert page.get_by_role("textbox", name="Text", exact=True).input_value() == TEXT
    # It is in the address no longer, so the browser's history does not keep it.
    assert page.url == f"{service.url}/"
    fragment = address.partition("#")[2]
    assert fragment
    assert not [r for r in requests if r.resource_type != "document" and fragment in r.url]
    assert fragment not in service.log.read_text()


def test_exports_have_the_context_and_the_text_that_was_scored(page):
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Context that comes before").fill("<i>Before</i>")
    score(page, TEXT)
    page.get_by_role("textbox", name="Text", exact=True).fill("edited since")
    expect(page.locator(".how")).to_contain_text("after a context of 13 characters.")
    assert json.loads(taken(page, "json"))["context"] == "<i>Before</i>"
    assert b">&#60;i&#62;Before&#60;/i&#62;<" in taken(page, "html")
    page.get_by_role("button", name="Copy a link to the text").click()
    page.get_by_text("The text is in the part after #").wait_for()
    coded = page.get_by_label("Link").input_value().partition("#texts=")[2]
    packed = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4))
    state = json.loads(zlib.decompress(packed, wbits=-15))
    assert (state["texts"][0]["text"], state["context"]) == (TEXT, "<i>Before</i>")


@pytest.mark.parametrize(
    "state", [None, {"texts": [None]}, {"texts": [{"text_b64": "!"}]}, {"texts": 3}, [], "x"]
)
def test_broken_link_opens_the_empty_page(open_page, service, state):
    packed = zlib.compress(json.dumps(state).encode(), wbits=-15)
    fragment = base64.urlsafe_b64encode(packed).decode().rstrip("=") if state else "!!"
    page = open_page(f"{service.url}/#texts={fragment}")
    expect(page.get_by_role("textbox", name="Text", exact=True)).to_have_value("")
    expect(page).to_have_url(f"{service.url}/")


def test_texts_survive_a_reload_and_bytes_do_so_unchanged(page):
    page.get_by_role("textbox", name="Text", exact=True).fill(TEXT)
    page.reload()
    expect(page.get_by_role("textbox", name="Text", exact=True)).to_have_value(TEXT)
    # They were in the storage only while the page was away.
    assert page.evaluate("sessionStorage.length") == 0
    chooser = page.locator("[data-key=a] input[type=file]")
    chooser.set_input_files({"name": "f.bin", "mimeType": "", "buffer": b"\xff\x00A"})
    page.get_by_text("f.bin").wait_for()
    page.reload()
    page.get_by_text("f.bin").wait_for()
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator(".map .c")).to_have_text(["FF", "U+0000", "A"])
