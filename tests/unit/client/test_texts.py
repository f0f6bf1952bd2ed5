"""From what a caller gives to the JSON that is sent, and back."""

import gzip
import json

import numpy as np
import pytest

import evascore
from evascore.errors import EmptyText, NotInResult, NotText, RequestInvalid, UnexpectedAnswer
from evascore.operations.calls import batch_request, job_fields
from evascore.operations.grouping import GROUP_BYTES, GROUP_TEXTS, groups
from evascore.results import batch, job, line
from evascore.texts import Text, encode


def test_bytes_that_are_no_unicode_travel_as_base64():
    assert Text(b"\xff\x00").fields() == {"text_b64": "/wA="}


def test_bytes_that_are_unicode_travel_as_text():
    assert Text("ü".encode()).fields() == {"text": "ü"}


def test_text_with_a_context_is_a_continuation():
    assert Text("b", context=b"\xff").fields() == {"continuation": "b", "context_b64": "/w=="}


def test_continuations_of_both_kinds_all_travel_as_base64():
    fields = job_fields(context="a", continuations=["b", b"\xff"])
    assert fields == {"context": "a", "continuations_b64": ["Yg==", "/w=="]}


def test_lone_surrogate_is_refused_without_being_quoted():
    with pytest.raises(RequestInvalid) as raised:
        encode({"text": "secret\ud800"})
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    "text", [None, 5, ["a", "b"], memoryview(b"a")], ids=lambda text: type(text).__name__
)
def test_what_is_no_text_is_reported_by_its_type(text):
    with pytest.raises(TypeError, match=f"not {type(text).__name__}"):
        Text(text).fields()
    (outcome,) = next(groups([text], {}))
    assert isinstance(outcome, NotText)
    assert str(outcome).endswith(f"not {type(text).__name__}.")


class Table:
    columns = ("text",)

    def __iter__(self):
        return iter(self.columns)


@pytest.mark.parametrize(
    "texts",
    ["abc", b"abc", bytearray(b"abc"), Text("abc"), {"a": "b"}, Table(), None, 5],
    ids=lambda texts: type(texts).__name__,
)
def test_single_text_or_table_is_no_list_of_texts(texts):
    for use in (
        evascore.Client("http://a.test").score_many,
        evascore.AsyncClient("http://a.test").score_many,
        lambda texts: job_fields(context="a", continuations=5 if texts is None else texts),
    ):
        with pytest.raises(TypeError, match="must be a list of texts, not"):
            use(texts)


@pytest.mark.parametrize("lines", [b"abc", Text("abc"), {"a": "b"}, Table()])
def test_single_text_or_table_is_no_batch(lines):
    with pytest.raises(TypeError, match="must be a list of texts, not"):
        batch_request(lines, {})


@pytest.mark.parametrize("line", [None, float("nan"), Text(None), Text("a", context=5)], ids=repr)
def test_batch_with_a_missing_value_is_refused_before_it_is_sent(line):
    with pytest.raises(NotText, match=r"^lines\[1\]: A text must be"):
        batch_request(["a", line], {})


def test_text_of_several_that_cannot_be_sent_is_named_by_its_index():
    with pytest.raises(NotText, match=r"^texts\[2\]: A text must be"):
        job_fields("a", "b", None)
    with pytest.raises(NotText, match=r"^continuations\[1\]: A text must be"):
        job_fields(context="a", continuations=["b", 5])
    request = batch_request(["a", "secret\ud800"], {})
    with pytest.raises(RequestInvalid, match=r"^lines\[1\]: A text holds half") as raised:
        list(request.body())
    assert "secret" not in str(raised.value)


def test_wrong_errors_option_is_refused():
    with pytest.raises(ValueError, match="errors is 'ignore'; it must be one of raise, return"):
        evascore.Client("http://a.test").score_many(["a"], errors="ignore")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.bool_(True), True),
        (np.float32(0.5), 0.5),
        (np.str_("a"), "a"),
        (np.array([[0, 2], [2, 3]]), [[0, 2], [2, 3]]),
        ([(np.int64(0), np.int32(2))], [[0, 2]]),
        ({"size": np.int64(2)}, {"size": 2}),
        (range(2), [0, 1]),
        (("bytes",), ["bytes"]),
    ],
    ids=repr,
)
def test_numbers_and_arrays_of_numpy_are_sent_as_those_of_python(value, expected):
    assert json.loads(encode({"option": value})) == {"option": expected}
    assert json.loads(encode(Text("a", options={"spans": value}).fields()))["spans"] == expected


@pytest.mark.parametrize("value", [float("nan"), np.float64("inf"), np.float32("nan"), object()])
def test_option_that_is_no_json_is_refused(value):
    with pytest.raises(RequestInvalid, match="An option is not a JSON value"):
        encode({"top_k": value})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), "3"),
        (("bytes", "top_k"), "bytes,top_k"),
        (np.array(["bytes", "top_k"]), "bytes,top_k"),
        (np.str_("skip"), "skip"),
    ],
    ids=repr,
)
def test_parameters_of_a_batch_may_come_from_numpy(value, expected):
    assert batch_request(["a"], {"name": value}).params == {"name": expected}


@pytest.mark.parametrize(
    "lines", [np.array(["a", "b"]), iter(["a", "b"])], ids=lambda lines: type(lines).__name__
)
def test_batch_from_an_array_or_a_generator_can_be_read_twice(lines):
    request = batch_request(lines, {})
    bodies = [gzip.decompress(b"".join(request.body())) for _ in range(2)]
    assert bodies == [b'{"text": "a"}\n{"text": "b"}\n'] * 2
    assert request.num_lines == 2


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        pytest.param([], [], id="none"),
        pytest.param([GROUP_BYTES + 1], [1], id="one that is too large alone"),
        pytest.param([GROUP_BYTES, 1], [1, 1], id="limit, then one byte"),
        pytest.param([GROUP_BYTES - 1, 1, 1], [2, 1], id="limit together"),
        pytest.param([1] * (GROUP_TEXTS + 1), [GROUP_TEXTS, 1], id="count"),
    ],
)
def test_groups_keep_order_and_bounds(sizes, expected):
    found = list(groups(("x" * size for size in sizes), {}))
    assert [len(group) for group in found] == expected
    assert [len(text.text) for group in found for text in group] == sizes


def test_groups_read_no_further_than_they_must():
    def endless():
        while True:
            yield "x"

    assert len(next(groups(endless(), {}))) == GROUP_TEXTS


def test_batch_can_be_read_twice():
    request = batch_request(["a", b"\xff", Text("c", custom_id="d")], {"on_error": "skip"})
    bodies = [gzip.decompress(b"".join(request.body())) for _ in range(2)]
    assert bodies[0] == bodies[1]
    lines = [json.loads(line) for line in bodies[0].splitlines()]
    assert lines == [{"text": "a"}, {"text_b64": "/w=="}, {"text": "c", "custom_id": "d"}]
    assert request.params == {"on_error": "skip"}


LINKS = {"self": "/score/a", "events": "/score/a/events"}
BATCH = {
    "id": "a",
    "object": "batch",
    "status": "cancelling",
    "created_at": "2026-01-31T12:00:00.000Z",
    "deadline_at": "2026-02-01T12:00:00.000Z",
    "in_progress_at": None,
    "cancelling_at": "2026-01-31T12:00:01.000Z",
    "completed_at": None,
    "expires_at": None,
    "request_counts": {"total": 3, "completed": 1, "failed": 0},
    "num_bytes": 70,
    "model": {"name": "demo"},
    "links": {"self": "/batches/a", "results": "/batches/a/results", "events": "/batches/a/events"},
}


def test_unknown_fields_of_a_newer_service_are_kept():
    reply = {"id": "a", "state": "QUEUED", "links": LINKS, "eta_s": 3}
    assert job(reply).raw["eta_s"] == 3
    counts = {**BATCH["request_counts"], "skipped": 2}
    newer = batch({**BATCH, "request_counts": counts, "priority": "bulk"})
    assert newer.raw["priority"] == "bulk"
    assert newer.request_counts.raw["skipped"] == 2


def test_batch_has_the_fields_of_its_json():
    read = batch(BATCH)
    assert (read.deadline_at, read.cancelling_at) == (BATCH["deadline_at"], BATCH["cancelling_at"])
    assert (read.num_bytes, read.model["name"]) == (70, "demo")
    assert read.links["results"] == "/batches/a/results"
    assert not read.is_final


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"id": "a"},
        {"id": "a", "status": "completed"},
        {**BATCH, "request_counts": {}},
    ],
)
def test_answer_without_its_fields_is_no_batch(reply):
    with pytest.raises(UnexpectedAnswer):
        batch(reply)


SCORE = {
    "num_bytes": 1,
    "num_chars": 1,
    "log_likelihood_nats": -1.0,
    "bits_per_byte": 1.4,
    "byte_perplexity": 2.7,
    "is_greedy": False,
}


def result_line(**reply):
    return line({"index": 0, "status": "SUCCESS", "custom_id": "mine", **reply})


def test_empty_text_has_characters_after_it_and_no_bits_per_byte():
    after = {"characters": [["a", 0.5]], "other": 0.25, "invalid": 0.125, "undecided": 0.125}
    empty = {**SCORE, "num_bytes": 0, "bits_per_byte": None, "byte_perplexity": None}
    read = result_line(result={**empty, "top_k": [], "next_chars": after}).outcome
    assert read.bits_per_byte is None
    assert read.top_k == []
    assert read.next_chars.characters == [("a", 0.5)]


def test_line_gives_its_score_with_the_name_of_its_text():
    assert result_line(result=SCORE).outcome.custom_id == "mine"
    alone = result_line(result={"continuations": [SCORE]})
    assert (alone.outcome.num_bytes, len(alone.continuations())) == (1, 1)


def test_line_of_several_continuations_gives_them_in_order():
    two = result_line(result={"continuations": [SCORE, {**SCORE, "num_bytes": 2}]})
    assert [score.num_bytes for score in two.continuations()] == [1, 2]
    with pytest.raises(NotInResult, match=r"2 scores; read them with continuations\(\)"):
        _ = two.outcome
    with pytest.raises(NotInResult, match="no continuations"):
        result_line(result=SCORE).continuations()


def test_job_that_has_not_ended_has_no_result():
    queued = job({"id": "a", "state": "QUEUED", "links": LINKS})
    with pytest.raises(NotInResult, match="is QUEUED and has no result yet"):
        queued.score()


def test_line_without_a_score_has_no_continuations():
    refused = result_line(status="FAILURE", error={"type": "empty_text", "status": 422})
    with pytest.raises(EmptyText):
        refused.continuations()
