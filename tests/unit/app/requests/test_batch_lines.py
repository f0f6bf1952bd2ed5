"""Lines become parts: each line checked, each part within one budget, no line lost or doubled."""

import time

import gevent
import orjson
import pytest
from werkzeug.datastructures import MultiDict

from app.requests.batch_lines import PartCutter, lines_of_array, read_options
from app.service.turns import LARGE_BYTES, TURN_S, LargeWork
from contract.batches import LINE_WORK_BYTES, REFUSED
from contract.errors import RequestInvalid
from contract.grammar.lines import Line
from contract.settings import load_settings

SMALL = load_settings({"EVASCORE_MICRO_BATCH_BYTES": "10", "EVASCORE_MICRO_BATCH_TEXTS": "3"})


def options(**query):
    return read_options(MultiDict(query), SMALL)


def cutter_of(options, settings, **fields):
    large_work = LargeWork()
    return PartCutter(
        options, settings, deadline_at=60.0, request_id="r", large_work=large_work, **fields
    )


def cut(*contents, settings=SMALL, **query):
    lines = [
        Line(number, line if line is None or isinstance(line, bytes) else orjson.dumps(line))
        for number, line in enumerate(contents, 1)
    ]
    cutter = cutter_of(options(**query), settings)
    return list(cutter.parts(lines))


def texts(*lengths):
    return [{"text": "x" * length} for length in lengths]


@pytest.mark.parametrize(
    ("lengths", "parts"),
    [
        ([4, 4, 4], [(0, 2), (2, 1)]),
        ([10, 10], [(0, 1), (1, 1)]),
        ([1, 1, 1, 1], [(0, 3), (3, 1)]),
        ([40, 1], [(0, 1), (1, 1)]),
        ([1, 40, 1], [(0, 1), (1, 1), (2, 1)]),
    ],
)
def test_part_holds_at_most_one_budget_and_a_larger_line_is_alone(lengths, parts):
    assert [(part.first, part.num_lines) for part, _ in cut(*texts(*lengths))] == parts


def test_next_characters_of_a_line_are_work():
    lines = {"text": "x" * 10, "next_chars": 100}, {"text": "", "next_chars": 3}
    ((part, _),) = cut(*lines, settings=load_settings({}))
    assert part.num_bytes == 110 + LINE_WORK_BYTES


def test_each_line_costs_a_minimum_of_work_and_a_bad_one_too():
    settings = load_settings({})
    cutter = cutter_of(options(on_error="skip"), settings)
    contents = [*map(orjson.dumps, texts(1, 64, 65)), b"bad"]
    lines = [Line(number, content) for number, content in enumerate(contents, 1)]
    ((part, job),) = cutter.parts(lines)
    assert cutter.num_bytes == 1 + 64 + 65
    assert cutter.work_bytes == part.num_bytes == job.num_bytes == 64 + 64 + 65 + 64


def test_part_holds_no_more_results_than_one_job_may():
    settings = load_settings({"EVASCORE_MAX_RESULT_BYTES": "3000"})
    lines = [{"text": "x", "outputs": ["top_k"], "top_k": 10}] * 5
    assert [part.num_lines for part, _ in cut(*lines, settings=settings)] == [2, 2, 1]
    with pytest.raises(RequestInvalid) as raised:
        cut({"text": "x" * 8, "outputs": ["top_k"], "top_k": 10}, settings=settings)
    assert raised.value.details["limit_bytes"] == 3000


def test_job_of_a_part_holds_its_lines_in_order_as_bulk():
    (_, job), (_, last) = cut(*texts(5, 5, 1))
    assert [request["text"] for request in job.requests] == ["xxxxx", "xxxxx"]
    assert [request["text"] for request in last.requests] == ["x"]
    assert (job.priority, job.is_single, job.deadline_at, job.num_bytes) == (9, False, 60.0, 128)


def test_options_of_the_query_hold_where_a_line_says_nothing():
    ((_, job),) = cut(
        {"text": "a"}, {"text": "b", "outputs": ["bytes"]}, outputs="top_k", top_k="7"
    )
    first, second = job.requests
    assert (first["outputs"], first["top_k"]) == (["top_k"], 7)
    assert second["outputs"] == ["bytes"]
    assert "top_k" not in second


BAD = {
    "not-json": (b"{nope", "malformed_body"),
    "not-an-object": (b"[1]", "invalid_request"),
    "not-utf8": (b'{"text": "\xff"}', "malformed_body"),
    "two-of-one-name": (b'{"text": "a", "text": "b"}', "malformed_body"),
    "lone-surrogate": (b'{"text": "\\ud800"}', "malformed_body"),
    "unknown-field": ({"text": "a", "txt": "b"}, "invalid_request"),
    "items": ({"items": [{"text": "a"}]}, "invalid_request"),
    "nothing-to-score": ({}, "invalid_request"),
    "empty-text": ({"text": ""}, "empty_text"),
    "too-large": ({"text": "x" * 40_000}, "text_too_large"),
    "base64": ({"text_b64": "!"}, "invalid_request"),
    "too-long-a-line": (None, "body_too_large"),
}


@pytest.mark.parametrize(("line", "_code"), BAD.values(), ids=BAD)
def test_bad_line_fails_the_upload_by_its_number(line, _code):
    with pytest.raises(RequestInvalid, match="Line 2") as raised:
        cut({"text": "good"}, line)
    assert raised.value.details["line"] == 2
    assert {error["line"] for error in raised.value.details["errors"]} == {2}


@pytest.mark.parametrize(("line", "code"), BAD.values(), ids=BAD)
def test_bad_line_stands_in_its_place_with_its_error_where_it_is_skipped(line, code):
    ((part, job),) = cut({"text": "a"}, line, {"text": "b"}, on_error="skip")
    assert part.num_lines == 3
    refused = job.requests[1][REFUSED]
    assert (refused["code"], refused["line"]) == (code, 2)
    assert [request.get("text") for request in job.requests] == ["a", None, "b"]


def test_upload_with_too_many_bad_lines_is_refused_with_the_first_of_them():
    settings = load_settings({"EVASCORE_MAX_UPLOAD_ERRORS": "12"})
    lines = [{"text": "a"}, *[b"x"] * 12]
    assert sum(part.num_lines for part, _ in cut(*lines, settings=settings, on_error="skip")) == 13
    with pytest.raises(RequestInvalid, match="more than 12 wrong lines") as raised:
        cut(*lines, b"y", settings=settings, on_error="skip")
    assert raised.value.details["limit_errors"] == 12
    assert [error["line"] for error in raised.value.details["errors"]] == [*range(2, 12)]


def test_no_more_bad_lines_are_read_than_are_allowed():
    read = []

    def lines():
        for number in range(1, 300_001):
            read.append(number)
            yield Line(number, b"x")

    cutter = cutter_of(options(on_error="skip"), load_settings({}))
    with pytest.raises(RequestInvalid):
        list(cutter.parts(lines()))
    assert len(read) == load_settings({}).max_upload_errors + 1


def test_name_of_a_bad_line_is_kept():
    ((_, job),) = cut({"custom_id": "7", "text": ""}, on_error="skip")
    assert job.requests[0]["custom_id"] == "7"


@pytest.mark.parametrize("custom_id", [7, "", "x" * 129, None])
def test_bad_name_of_a_bad_line_is_not_kept(custom_id):
    ((_, job),) = cut({"custom_id": custom_id, "text": ""}, on_error="skip")
    assert "custom_id" not in job.requests[0]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"on_error": "ignore"}, "on_error"),
        ({"outputs": "words"}, "outputs"),
        ({"outputs": "top_k", "top_k": "x"}, "top_k"),
        ({"outputs": "top_k", "top_k": "0"}, "top_k"),
        ({"deadline_s": "0"}, "deadline_s"),
        ({"deadline_s": "1e9"}, "deadline_s"),
        ({"priority": "bulk"}, "priority"),
    ],
)
def test_bad_option_is_refused_by_name(query, parameter):
    with pytest.raises(RequestInvalid) as raised:
        options(**query)
    assert raised.value.details["errors"][0]["parameter"] == parameter


def test_others_run_while_an_array_is_decompressed():
    order = []

    def slow_pieces():
        for piece in (b"[1", b",2", b",3]"):
            until = time.perf_counter() + 2 * TURN_S
            while time.perf_counter() < until:
                pass
            order.append(piece)
            yield piece

    def read():
        order.extend(lines_of_array(slow_pieces(), LargeWork()))

    gevent.joinall([gevent.spawn(read), gevent.spawn(order.append, "other")], raise_error=True)
    assert order == [b"[1", "other", b",2", b",3]", b"1\n", b"2\n", b"3\n"]


@pytest.mark.parametrize("completions", [False, True])
def test_others_run_while_a_large_line_is_checked(completions):
    order = []
    text = "x" * LARGE_BYTES
    body = {"prompt": text, "max_tokens": 0, "echo": True, "model": "m"}
    native = {"text": text, "window": [1000, 1000]}
    openai = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": body}

    def read():
        cutter = cutter_of(
            options(on_error="skip"),
            SMALL,
            serves=lambda asked: asked == "m",
            answers_completions=completions,
        )
        line = Line(1, orjson.dumps(openai if completions else native))
        order.extend(part.num_lines for part, _ in cutter.parts([line]))

    gevent.joinall([gevent.spawn(read), gevent.spawn(order.append, "other")], raise_error=True)
    assert order == ["other", 1]
