"""Each answer is compared with what was sent; operations run here against answers of others."""

import base64
import json

import pytest

from evascore.errors import UnexpectedAnswer
from evascore.operations.api import Operations
from evascore.operations.calls import batch_request, job_fields
from evascore.operations.matching import check_job
from evascore.operations.retrying import Call
from evascore.operations.steps import REQUEST_ID, Answer
from evascore.texts import Text, length_bytes

CALL = Call.begin(timeout_s=60, patience_s=0)
LINKS = {"self": "/", "events": "/", "results": "/"}
OURS = "evascore-" + 24 * "a"


def scored(num_bytes, **more):
    return {
        "num_bytes": num_bytes,
        "num_chars": num_bytes,
        "log_likelihood_nats": -1.0,
        "bits_per_byte": 1.0,
        "byte_perplexity": 2.0,
        "is_greedy": False,
        **more,
    }


def job(result=None, *, task_id="abc", state="SUCCESS", **more):
    shown = {"id": task_id, "state": state, "links": LINKS, **more}
    return shown if result is None else {**shown, "result": result}


def batch(total=2, *, batch_id="abc", status="completed"):
    return {
        "id": batch_id,
        "status": status,
        "created_at": "",
        "deadline_at": "",
        "request_counts": {"total": total, "completed": total, "failed": 0},
        "num_bytes": 1,
        "links": LINKS,
    }


def answered(steps, *answers, **headers):
    """Run an operation; each request gets the next answer."""
    waiting, reply = iter(answers), None
    while True:
        try:
            step = steps.send(reply)
        except StopIteration as end:
            return end.value
        shown = next(waiting)
        body = shown if isinstance(shown, bytes) else json.dumps(shown).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        reply = Answer(200, {REQUEST_ID: step.headers[REQUEST_ID], **named}, body)


def complete(*texts, **options):
    return Operations().complete(job_fields(*texts, **options), CALL, key=None)


def complete_base64(encoded):
    return Operations().complete({"text_b64": encoded}, CALL, key=None)


def submit(*texts, **options):
    return Operations().submit(job_fields(*texts, **options), CALL, key=None)


def pair(first, second):
    return {"items": [{"custom_id": "a", "result": scored(first)}, {"result": scored(second)}]}


TWO = (Text("xx", custom_id="a"), "y")
CONTINUATIONS = {"context": "a", "continuations": ["bb", b"\xff"]}


def continued(*lengths):
    return job({"continuations": [scored(length) for length in lengths]})


OF_OTHERS = {
    "score of another length": (complete("abc"), job(scored(4))),
    "score of bytes of another length": (complete(b"\xff\xfe"), job(scored(3))),
    "score of characters, not bytes": (complete("ü"), job(scored(1))),
    "score without a length": (complete("abc"), job({})),
    "no result": (complete("abc"), job()),
    "score instead of items": (complete("a", "b"), job(scored(1))),
    "items instead of a score": (complete("a"), job({"items": [{"result": scored(1)}]})),
    "too few items": (complete("a", "b"), job({"items": [{"result": scored(1)}]})),
    "items in another order": (complete(*TWO), job(pair(1, 2))),
    "items of other names": (complete("xx", "y"), job(pair(2, 1))),
    "continuations of another length": (complete(**CONTINUATIONS), continued(2, 2)),
    "too few continuations": (complete(**CONTINUATIONS), continued(2)),
    "too many continuations": (complete(**CONTINUATIONS), continued(2, 1, 1)),
    "one continuation of another length": (complete("bb", context="a"), continued(3)),
    "job of another number of texts": (submit("a"), job(state="QUEUED", num_texts=2)),
    "job of another length": (submit("a", "ü"), job(state="QUEUED", num_bytes=2)),
    "job that is waited for": (Operations().wait("abc", CALL), job(scored(1), task_id="b")),
    "job that is read": (Operations().read("abc", CALL), job(scored(1), task_id="b")),
    "job that is cancelled": (Operations().cancel("abc", CALL), job(state="REVOKED", task_id="b")),
    "batch of another number of lines": (
        Operations().submit_batch(batch_request(["a", "b"], {}), CALL, key=None),
        batch(3),
    ),
    "batch that is read": (Operations().read_batch("abc", CALL), batch(batch_id="b")),
    "batch that is waited for": (Operations().wait_batch("abc", CALL), batch(batch_id="b")),
    "batch that is cancelled": (Operations().cancel_batch("abc", CALL), batch(batch_id="b")),
    "lines of another page": (Operations().page("abc", 2, 5, CALL), b'{"index": 3}\n'),
    "lines with a gap": (Operations().page("abc", 0, 5, CALL), b'{"index": 0}\n{"index": 2}\n'),
    "lines that are none": (Operations().page("abc", 0, 5, CALL), job(scored(1))),
}


@pytest.mark.parametrize(("steps", "shown"), OF_OTHERS.values(), ids=OF_OTHERS)
def test_answer_with_the_contents_of_another_is_refused(steps, shown):
    with pytest.raises(UnexpectedAnswer, match="belongs to another request"):
        answered(steps, shown)


def test_result_that_is_waited_for_is_compared_too():
    with pytest.raises(UnexpectedAnswer, match="belongs to another request"):
        answered(complete("abc"), job(state="QUEUED"), job(scored(4)))


@pytest.mark.parametrize("num_bytes", range(10))
def test_length_of_base64_is_that_of_its_bytes(num_bytes):
    encoded = base64.b64encode(b"\xff" * num_bytes).decode()
    shown = job(scored(num_bytes), num_bytes=max(num_bytes, 1))
    assert answered(complete_base64(encoded), shown).raw == shown
    with pytest.raises(UnexpectedAnswer):
        answered(complete_base64(encoded), job(scored(num_bytes + 1)))


@pytest.mark.parametrize("encoded", ["=", "YQ", "a b", "ü"])
def test_answer_to_base64_that_the_service_refuses_is_that_of_another_request(encoded):
    with pytest.raises(UnexpectedAnswer, match="belongs to another request"):
        answered(complete_base64(encoded), job(scored(7)))


def test_length_of_each_text_is_computed_once(monkeypatch):
    measured = []

    def length(text):
        measured.append(text)
        return length_bytes(text)

    monkeypatch.setattr("evascore.operations.matching.length_bytes", length)
    fields = {"items": [{"context": "c", "continuation": "ü"}, {"text": "b"}]}
    shown = job({"items": [{"result": scored(1)}, {"result": scored(1)}]})
    shown["result"]["items"][0]["result"] = {"continuations": [scored(2)]}
    check_job({**shown, "num_texts": 2, "num_bytes": 4}, fields)
    assert sorted(measured) == ["b", "c", "ü"]


RIGHT = {
    "score": (lambda: complete("abc"), job(scored(3), num_texts=1, num_bytes=3)),
    "score of bytes": (lambda: complete(b"\xff\xfe"), job(scored(2), num_bytes=2)),
    "score of a text of several bytes a character": (lambda: complete("ü€😀"), job(scored(9))),
    "empty text": (lambda: complete("", next_chars=1), job(scored(0), num_bytes=1)),
    "windows": (lambda: complete("abc", window={"size": 2}), job(scored(3), num_bytes=5)),
    "items": (lambda: complete(*TWO), job(pair(2, 1), num_texts=2, num_bytes=3)),
    "item with an error": (
        lambda: complete("a", "b"),
        job({"items": [{"error": {"type": "x"}}, {"result": scored(1)}]}),
    ),
    "continuations": (lambda: complete(**CONTINUATIONS), continued(2, 1)),
    "one continuation": (lambda: complete("bb", context="a"), continued(2)),
    "record without numbers": (
        lambda: submit("a"),
        job(state="REVOKED", num_texts=None, num_bytes=None),
    ),
    "failed job": (lambda: complete("a"), job(state="FAILURE", error={"type": "x"})),
}


@pytest.mark.parametrize(("steps", "shown"), RIGHT.values(), ids=RIGHT)
def test_answer_to_what_was_sent_is_taken(steps, shown):
    assert answered(steps(), shown).raw == shown


ANY = {
    "score": lambda: complete("a"),
    "submit": lambda: submit("a"),
    "wait": lambda: Operations().wait("abc", CALL),
    "read": lambda: Operations().read("abc", CALL),
    "cancel": lambda: Operations().cancel("abc", CALL),
    "erase": lambda: Operations().erase("abc", CALL),
    "submit a batch": lambda: Operations().submit_batch(batch_request(["a"], {}), CALL, key=None),
    "read a batch": lambda: Operations().read_batch("abc", CALL),
    "wait for a batch": lambda: Operations().wait_batch("abc", CALL),
    "cancel a batch": lambda: Operations().cancel_batch("abc", CALL),
    "erase a batch": lambda: Operations().erase_batch("abc", CALL),
    "page": lambda: Operations().page("abc", 0, 5, CALL),
    "info": lambda: Operations().info(CALL),
    "get": lambda: Operations().get("/stats", CALL),
}


@pytest.mark.parametrize("steps", ANY.values(), ids=ANY)
def test_answer_with_the_id_of_another_request_is_refused(steps):
    with pytest.raises(UnexpectedAnswer, match="belongs to another request"):
        answered(steps(), job(scored(1)), **{REQUEST_ID: OURS})


@pytest.mark.parametrize("shown", ["", "0a1b2c", "made-by-a-proxy", OURS + "0"])
def test_request_id_that_a_proxy_replaced_says_nothing(shown):
    assert answered(complete("abc"), job(scored(3)), **{REQUEST_ID: shown}).score().num_bytes == 3


def test_each_attempt_has_an_id_of_its_own():
    sent, steps = [], Operations().get("/stats", Call.begin(60, 60))
    step = next(steps)
    for _ in range(2):
        sent.append(step.headers[REQUEST_ID])
        step = steps.send(Answer(503, {"retry-after": "0"}, b""))
        step = steps.send(None)
    assert len({*sent, step.headers[REQUEST_ID]}) == 3


def test_mixed_up_texts_stand_as_errors_in_their_places():
    steps = Operations().outcomes([Text("a"), Text("bb")], CALL)
    shown = {"items": [{"result": scored(2)}, {"result": scored(1)}]}
    assert [type(outcome) for outcome in answered(steps, job(shown))] == [UnexpectedAnswer] * 2
