"""When the client repeats a request; its operations run here against replies from a list."""

import itertools
import json
import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from evascore.errors import (
    BY_CODE,
    CapacityError,
    ClientError,
    Overloaded,
    RequestInvalid,
    ServiceError,
    ServiceUnreachable,
    TimedOut,
)
from evascore.operations.api import HELD_S, Operations
from evascore.operations.calls import batch_request
from evascore.operations.retrying import (
    FIRST_BACKOFF_S,
    GRACE_S,
    MAX_BACKOFF_S,
    MAX_RETRY_AFTER_S,
    PROBE_S,
    SPREAD,
    Call,
    Circuit,
    backoff_s,
    exchange,
    retry_after_s,
)
from evascore.operations.steps import Answer, Lost, Pause, Send
from evascore.texts import Text

GET = Send("GET", "/info", 30)
OK = Answer(200, {}, b"{}")
LOST = Lost("no answer")
CODES_OF_ONE_TEXT = {
    "invalid_request",
    "malformed_body",
    "empty_text",
    "text_too_large",
    "body_too_large",
}


class Clock:
    """Time that passes only where a pause says so."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


class Run:
    """Runs an operation against replies; keeps what it sent and how long it paused."""

    def __init__(self, steps, clock, replies, held_s=0.0, sent=None):
        self.sent, self.pauses = [] if sent is None else sent, []
        self._replies, self._clock, self._held_s = iter(replies), clock, held_s
        reply = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as end:
                self.result = end.value
                return
            reply = self._reply(step)

    def _reply(self, step):
        if isinstance(step, Pause):
            self.pauses.append(step.seconds)
            self._clock.now_s += step.seconds
            return None
        self.sent.append(step)
        self._clock.now_s += self._held_s
        return next(self._replies)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def call(clock):
    return make_call(clock)


def make_call(clock, *, timeout_s=300.0, patience_s=60.0, chance=0.5):
    return Call(clock, lambda: chance, clock() + timeout_s, timeout_s, patience_s)


def refusal(status=503, kind="overloaded", **headers):
    body = b'{"type": "%s", "detail": "The queue is full.", "retryable": true}' % kind.encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"content-type": "application/problem+json", **named}, body)


def job(state="QUEUED", **headers):
    body = b'{"id": "abc", "state": "%s", "links": {}}' % state.encode()
    return Answer(200, headers, body)


# --- what is repeated -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_pass_later_is_repeated(call, clock, status):
    run = Run(exchange(GET, call, Circuit()), clock, [refusal(status), OK])
    assert run.result is OK
    assert len(run.sent) == 2


def test_lost_connection_is_repeated(call, clock):
    assert len(Run(exchange(GET, call, Circuit()), clock, [LOST, LOST, OK]).sent) == 3


@pytest.mark.parametrize("status", [400, 404, 409, 410, 413, 415, 422, 500, 501])
def test_what_cannot_pass_later_is_raised_at_once(call, clock, status):
    with pytest.raises(ServiceError) as raised:
        Run(exchange(GET, call, Circuit()), clock, [refusal(status, "made_up")])
    assert isinstance(raised.value, ClientError) == (status < 500)


@pytest.mark.parametrize("status", [400, 503])
@pytest.mark.parametrize("errors", [{"field": ["wrong"]}, "wrong", ["wrong"], 5])
@pytest.mark.parametrize("kind", ["about:blank", "invalid_request"])
def test_problem_of_another_maker_is_an_error_of_this_package(clock, status, errors, kind):
    problem = {"type": kind, "title": "Wrong.", "status": None, "errors": errors}
    body = json.dumps(problem).encode()
    answer = Answer(status, {"content-type": "application/problem+json"}, body)
    call = make_call(clock, patience_s=0)
    with pytest.raises(ServiceError, match=r"Wrong\.") as raised:
        Run(exchange(GET, call, Circuit()), clock, [answer])
    assert (raised.value.status, raised.value.errors) == (status, [])


def test_busy_answer_that_only_claims_to_be_a_problem_is_repeated(call, clock):
    answer = Answer(502, {"content-type": "application/problem+json"}, b"<html>")
    assert Run(exchange(GET, call, Circuit()), clock, [answer, OK]).result is OK


@pytest.mark.parametrize("cut", [LOST, Answer(504, {"content-type": "text/html"}, b"")])
def test_long_poll_that_a_proxy_cuts_is_repeated_with_a_shorter_wait(call, clock, cut):
    run = Run(Operations().wait("abc", call), clock, [cut, cut, job("SUCCESS")], held_s=10)
    assert [send.params["wait"] for send in run.sent] == ["25.000", "5.000", "2.500"]
    assert run.result.is_final


def test_submission_that_a_proxy_cuts_is_repeated_with_a_shorter_wait(call, clock):
    steps = Operations().submit({"text": "a"}, call, key=None, wait_s=25)
    run = Run(steps, clock, [LOST, job()], held_s=20)
    assert [send.params["wait"] for send in run.sent] == ["25.000", "10.000"]


def test_long_poll_that_is_lost_at_once_keeps_its_wait(call, clock):
    run = Run(Operations().wait("abc", call), clock, [LOST, job("SUCCESS")])
    assert [send.params["wait"] for send in run.sent] == ["25.000", "25.000"]


def test_all_attempts_of_a_submission_carry_one_key(call, clock):
    steps = Operations().submit({"text": "a"}, call, key=None)
    run = Run(steps, clock, [LOST, refusal(), job()])
    (key,) = {send.headers["Idempotency-Key"] for send in run.sent}
    assert len(key) >= 32


def test_two_submissions_carry_different_keys(call, clock):
    keys = [
        Run(Operations().submit({"text": "a"}, call, key=None), clock, [job()])
        .sent[0]
        .headers["Idempotency-Key"]
        for _ in range(2)
    ]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("key", ["", "two words", "line\n", "Bücher.jsonl"])
def test_key_that_no_header_can_carry_is_refused_before_it_is_sent(call, key):
    texts, lines = {"text": "a"}, batch_request(["a"], {})
    for steps in (
        Operations().submit(texts, call, key=key),
        Operations().submit_batch(lines, call, key=key),
    ):
        with pytest.raises(RequestInvalid, match="Idempotency-Key must be visible ASCII"):
            next(steps)


def test_path_goes_behind_the_url_of_the_service(call):
    paths = [next(Operations().get(path, call)).path for path in ("/stats", "stats", "@host/")]
    assert paths == ["/stats", "/stats", "/@host/"]


# --- when -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("num_failures", [0, 1, 5, 100, 5000])
def test_backoff_stays_within_its_bounds(num_failures, chance):
    pause_s = backoff_s(num_failures, None, chance)
    assert 0 <= pause_s <= MAX_BACKOFF_S
    assert pause_s <= chance * FIRST_BACKOFF_S * 2.0 ** min(num_failures, 100)


@pytest.mark.parametrize("chance", [0.0, 0.999])
def test_named_time_is_never_undercut(chance):
    assert 7 <= backoff_s(3, 7.0, chance) <= 7 * (1 + SPREAD)


def test_retry_after_is_waited_for(call, clock):
    run = Run(exchange(GET, call, Circuit()), clock, [refusal(retry_after="4"), OK])
    assert sum(run.pauses) >= 4


def test_retry_after_may_be_a_date():
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 50 < retry_after_s(refusal(retry_after=in_a_minute)) <= 60


@pytest.mark.parametrize("value", ["9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_longest_retry_after_is_a_year(call, clock, value):
    with pytest.raises(Overloaded) as raised:
        Run(exchange(GET, call, Circuit()), clock, [refusal(retry_after=value)])
    assert raised.value.retry_after_s == MAX_RETRY_AFTER_S


NO_TIMES = ["soon", "-3", "1e3", "٣", "Sun, 99 Foo 2026 00:00:00 GMT"]


@pytest.mark.parametrize("value", ["", *NO_TIMES, "Fri, 31 Dec 99999999999 23:59:59 GMT"])
def test_retry_after_that_is_no_time_counts_as_absent(value):
    assert retry_after_s(refusal(retry_after=value)) is None


def test_pause_beyond_the_deadline_is_not_begun(clock):
    call = make_call(clock, timeout_s=5)
    with pytest.raises(Overloaded) as raised:
        Run(exchange(GET, call, Circuit()), clock, [refusal(retry_after="30")])
    assert raised.value.retry_after_s == 30
    assert clock() == 1000


def test_patience_ends_before_the_deadline(clock):
    call = make_call(clock, timeout_s=1e6, patience_s=20)
    with pytest.raises(ServiceUnreachable):
        Run(exchange(GET, call, Circuit()), clock, [LOST] * 1000)
    assert 5 < clock() - 1000 <= 20


def test_read_timeout_outlasts_the_deadline_by_the_grace_alone(clock):
    call = make_call(clock, timeout_s=3)
    assert Run(exchange(GET, call, Circuit()), clock, [OK]).sent[0].read_timeout_s == 3 + GRACE_S


# --- together -------------------------------------------------------------------------------------


def test_one_request_at_a_time_probes_a_service_that_is_away():
    circuit = Circuit()
    for _ in range(3):
        circuit.failed(100.0, 2.0, is_certain=False)
    assert circuit.wait_s(101.0) == 1.0
    assert circuit.wait_s(102.0) == 0
    assert [circuit.wait_s(102.0) for _ in range(50)] == [PROBE_S] * 50


def test_success_lets_all_pass_again():
    circuit = Circuit()
    circuit.failed(100.0, 9.0, is_certain=True)
    assert circuit.wait_s(100.0)
    circuit.succeeded()
    assert circuit.wait_s(100.0) == 0


def test_two_lost_connections_do_not_hold_others_up():
    circuit = Circuit()
    circuit.failed(100.0, 9.0, is_certain=False)
    circuit.failed(100.0, 9.0, is_certain=False)
    assert circuit.wait_s(100.0) == 0


def test_call_behind_an_open_circuit_sends_nothing_and_gives_up(clock):
    circuit = Circuit()
    circuit.failed(clock(), 1e6, is_certain=True)
    sent = []
    with pytest.raises(CapacityError):
        Run(exchange(GET, make_call(clock, patience_s=7), circuit), clock, sent)
    assert 7 <= clock() - 1000 < 9


def test_full_queue_does_not_hold_up_reading(clock, call):
    operations = Operations()
    steps = operations.submit({"text": "a"}, make_call(clock, timeout_s=1), key=None)
    with pytest.raises(Overloaded):
        Run(steps, clock, [refusal(retry_after="30")])
    assert Run(operations.read("abc", call), clock, [job()]).pauses == []


# --- following ------------------------------------------------------------------------------------


def test_poll_that_was_held_is_followed_by_the_next_at_once(call, clock):
    replies = [job(), job(), job("SUCCESS")]
    run = Run(Operations().wait("abc", call), clock, replies, held_s=HELD_S)
    assert run.pauses == []
    assert all(float(send.params["wait"]) > 1 for send in run.sent)


def test_poll_that_was_not_held_waits_as_the_service_asks(call, clock):
    replies = [job(**{"retry-after": "3"}), job("SUCCESS")]
    assert Run(Operations().wait("abc", call), clock, replies).pauses[0] >= 3


def test_request_that_is_held_until_the_deadline_can_still_be_answered(clock):
    call = make_call(clock, timeout_s=2)
    steps = Operations().complete({"text": "a"}, call, key=None)
    sent = []
    with pytest.raises(TimedOut):
        Run(steps, clock, [job()] * 3, held_s=1.9, sent=sent)
    for send in sent[:2]:
        assert send.read_timeout_s > float(send.params["wait"]) + 1


def test_late_job_is_cancelled(clock):
    call = make_call(clock, timeout_s=10)
    steps = Operations().complete({"text": "a"}, call, key=None)
    sent = []
    with pytest.raises(TimedOut) as raised:
        Run(steps, clock, [job(), job(), OK], held_s=6, sent=sent)
    assert raised.value.task_id == "abc"
    assert "Timed out after 10 s; job abc" in str(raised.value)
    assert (sent[-1].method, sent[-1].path) == ("POST", "/score/abc/cancel")


def test_timeout_of_a_wait_says_how_far_the_job_is(clock):
    call = make_call(clock, timeout_s=2.5)
    with pytest.raises(TimedOut, match=r"after 2\.5 s; job abc is still started"):
        Run(Operations().wait("abc", call), clock, [job("STARTED")] * 2, held_s=3)


def test_text_that_is_refused_keeps_no_other_from_its_score(call, clock):
    score = b'{"id": "a", "state": "SUCCESS", "links": {}, "result": %s}'
    fields = (
        b'{"num_bytes": 1, "num_chars": 1, "log_likelihood_nats": -1, "bits_per_byte": 1,'
        b' "byte_perplexity": 2, "is_greedy": false}'
    )
    replies = [refusal(413, "text_too_large"), Answer(200, {}, score % fields), refusal(413)]
    steps = Operations().outcomes([Text("a"), Text("b")], call)
    good, bad = Run(steps, clock, replies).result
    assert good.bits_per_byte == 1
    assert isinstance(bad, Overloaded)


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=BY_CODE)
def test_refused_group_is_split_only_if_one_text_can_be_the_cause(kind, clock):
    sent, refused = [], itertools.repeat(refusal(400, kind.code))
    steps = Operations().outcomes([Text("a")] * 32, make_call(clock, patience_s=0))
    outcomes = Run(steps, clock, refused, sent=sent).result
    assert [type(outcome) for outcome in outcomes] == [kind] * 32
    # One request for each node of a binary tree with 32 leaves, or one in all.
    assert len(sent) == (63 if kind.code in CODES_OF_ONE_TEXT else 1)


@pytest.mark.parametrize("limits", [(math.nan, 1), (1, math.nan)])
def test_time_limit_that_is_no_number_is_refused(limits):
    # No moment is later than it, so that a call would never end.
    with pytest.raises(ValueError, match="give seconds"):
        Call.begin(*limits)
