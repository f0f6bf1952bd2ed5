"""Mistakes in requests typed by hand: the answer says what was received and what to change."""

import gzip
import re

import pytest

from tests.e2e.http.test_errors import assert_problem
from tests.web import WebServer

MARKER = "Xylographenkraehe"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def web(web_redis, tmp_path_factory):
    """A web server whose log is searched for the marker at the end."""
    server = WebServer(tmp_path_factory.mktemp("web"), web_redis.url).start()
    yield server
    assert server.stop() == 0
    assert MARKER not in server.log.read_text()


def detail(response) -> str:
    return response.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "content", "words"),
    [
        (FORM, b'{"text": "a"}', ("x-www-form-urlencoded", "-H 'Content-Type: application/json'")),
        (FORM, b"a text", ("x-www-form-urlencoded", "-H 'Content-Type: text/plain'")),
        ({}, b'{"text": "a"}', ("has no Content-Type", "-H 'Content-Type: application/json'")),
        ({"Content-Type": f"{MARKER}/x"}, b"x", ("is not supported", "text/plain")),
    ],
)
def test_other_content_type_is_named_with_the_flag_to_add(http, headers, content, words):
    response = http.post("/score", content=content, headers=headers)
    assert_problem(response, 415, "unsupported_media_type")
    assert all(word in detail(response) for word in words), detail(response)


@pytest.mark.parametrize("media_type", ["text/plain", "application/json"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"text": "a\xff"}', "not valid UTF-8 at byte 11"),
        (gzip.compress(b"a text", mtime=0), "is gzip"),
        (b"\x28\xb5\x2f\xfd\x20\x01", "is zstd"),
        ("a text".encode("utf-16"), "is UTF-16"),
    ],
)
def test_bytes_that_are_no_text_are_called_by_their_name(http, media_type, content, words):
    response = http.post("/score", content=content, headers={"Content-Type": media_type})
    assert_problem(response, 400, "malformed_body")
    assert words in detail(response)


def test_empty_json_body_is_called_empty(http):
    response = http.post("/score", content=b" \n", headers={"Content-Type": "application/json"})
    assert "is empty" in detail(response)


def test_all_unknown_fields_are_named_with_suggestions(http):
    response = http.post("/score", json={"txet": "a", "topk": 3, MARKER: 1, "prompt": "a"})
    errors = assert_problem(response, 422, "invalid_request")["errors"]
    assert [(error["pointer"], error["detail"]) for error in errors] == [
        ("/txet", "is not a known field; did you mean text?"),
        ("/topk", "is not a known field; did you mean top_k?"),
        ("", "is not a known field; field names are lowercase, and /docs/ lists them"),
        ("/prompt", "is not a known field; did you mean text?"),
    ]


@pytest.mark.parametrize(
    ("name", "meant"), [("Text", "text"), ("topK", "top_k"), ("custom-id", "custom_id")]
)
def test_field_in_another_convention_is_recognized(http, name, meant):
    (error,) = http.post("/score", json={name: 1}).json()["errors"]
    assert error["detail"] == f"is not a known field; did you mean {meant}?"


@pytest.mark.parametrize("line_ends", [b"", b" "])
def test_lines_that_curl_joined_are_recognized(http, line_ends):
    body = line_ends.join([b'{"text": "a"}', b'{"text": "b"}'])
    headers = {"Content-Type": "application/x-ndjson"}
    response = http.post("/batches", content=body, headers=headers)
    assert "`curl --data-binary` keeps them" in detail(response)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/batches", "--data-binary @FILE -H 'Content-Type: application/x-ndjson'"),
        ("/v1/files", "-F purpose=batch -F file=@FILE"),
    ],
)
@pytest.mark.parametrize(
    ("headers", "came"),
    [
        (FORM, "which curl -d sends by default"),
        ({}, "has no Content-Type"),
        ({"Content-Type": f"{MARKER}/x"}, "is not supported"),
    ],
)
def test_other_content_type_of_a_file_is_named_with_the_flags_to_add(
    http, headers, came, path, words
):
    response = http.post(path, content=b'{"text": "a"}\n', headers=headers)
    assert_problem(response, 415, "unsupported_media_type")
    assert came in detail(response)
    assert words in detail(response)


def test_texts_as_other_services_call_them_are_items_here(http):
    (error,) = http.post("/score", json={"inputs": ["a"]}).json()["errors"]
    assert error["detail"] == "is not a known field; did you mean items?"


def test_all_unknown_parameters_are_named_with_suggestions(http):
    response = http.post("/score", params={"topk": 3, "wiat": 1}, json={"text": "a"})
    errors = assert_problem(response, 422, "invalid_request")["errors"]
    assert [error["parameter"] for error in errors] == ["topk", "wiat"]
    assert "did you mean top_k?" in errors[0]["detail"]
    assert "did you mean wait?" in errors[1]["detail"]


@pytest.mark.parametrize(
    "fields",
    [
        {"items": ["a"]},
        {"items": {"text": "a"}},
        {"items": [{"text": 1}]},
        {"items": [None]},
        {"text": "a", "window": 3},
        {"text": "a", "window": {"size": "x", "stride": 1, MARKER: 1}},
        {"text": "a", "spans": {"a": 1}},
        {"text": "a", "spans": [["a"]]},
        {"text": "a", "outputs": "bytes"},
        {"text": "a", "deadline_s": "soon"},
        {"text": "a", "model": 3},
        {"continuations": "a"},
    ],
)
def test_wrong_values_are_described_in_plain_words(http, fields):
    body = assert_problem(http.post("/score", json=fields), 422, "invalid_request")
    for error in body["errors"]:
        assert not re.search("instance of|valid dictionary|Input should|[A-Z]", error["detail"])


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/score", "does not accept GET; use POST."),
        ("PUT", "/healthz", "does not accept PUT; use GET."),
        (MARKER, "/score", "use POST."),
    ],
)
def test_refused_method_names_those_that_work(http, method, path, words):
    response = http.request(method, path)
    assert_problem(response, 405, "method_not_allowed")
    assert detail(response).endswith(words)


@pytest.mark.parametrize(("path", "status"), [(f"/{MARKER}", 404), ("/score", 405)])
def test_wrong_address_is_a_page_in_a_browser(http, path, status):
    response = http.get(path, headers=BROWSER)
    assert response.status_code == status
    assert response.headers["Content-Type"].startswith("text/html")
    assert "Accept" in response.headers["Vary"]
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "<h1>" in response.text
    assert MARKER not in response.text
