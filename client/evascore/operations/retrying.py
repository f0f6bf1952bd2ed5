"""Decides whether and when a request is retried: backoff, time limits, circuit breaker.

Every request of this client is safe to retry: reads change nothing, cancelling and erasing twice
is the same as once, and each submission carries an Idempotency-Key.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from evascore.connections import PerProcess
from evascore.errors import (
    CapacityError,
    EvascoreError,
    ServiceUnreachable,
    TimedOut,
    UnexpectedAnswer,
    error_from_problem,
)
from evascore.operations.matching import check_request_id, new_request_id
from evascore.operations.steps import REQUEST_ID, Answer, Lost, Pause, Reply, Send, Steps

FIRST_BACKOFF_S = 0.25
MAX_BACKOFF_S = 10.0
# Random share that is added to a Retry-After, so that clients do not return all at once.
SPREAD = 0.25
# After this many failures in a row the circuit opens; one or two lost connections are accidents.
FAILURES_TO_OPEN = 3
# After this time the next probe may go out, though the last is unanswered: it may be a long poll.
PROBE_S = 5.0
# How often a call looks again at an open circuit; that sends no request.
RECHECK_S = 0.25
# A proxy may have cut a long poll that failed after this time or later.
MIN_CUT_S = 1.0
# A Retry-After of more seconds, of a year, counts as this one: infinity could not be shown.
MAX_RETRY_AFTER_S = 365 * 86_400.0
# A request may take this long beyond the deadline of its call. A long poll that the service holds
# until the deadline is answered a little later, and that answer says that the job goes on.
GRACE_S = 2.0

_PASSING = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


@dataclass(frozen=True, slots=True)
class Call:
    """Time limits of one call, with its clock and its random numbers."""

    clock: Callable[[], float]
    """Monotonic time in seconds."""
    chance: Callable[[], float]
    """Random numbers of [0, 1)."""
    deadline: float
    """A time of `clock`."""
    timeout_s: float
    """Seconds from the start of the call to its deadline."""
    patience_s: float
    """Seconds to retry while the service is unreachable or has no room."""

    @classmethod
    def begin(cls, timeout_s: float, patience_s: float) -> "Call":
        """Start a call now.

        Raises:
            ValueError: a time limit is NaN: it would never pass.
        """
        for name, limit_s in (("timeout_s", timeout_s), ("patience_s", patience_s)):
            if math.isnan(limit_s):
                raise ValueError(f"{name} is not a number (NaN); give seconds, 0 or more")
        deadline = time.monotonic() + timeout_s
        return cls(time.monotonic, random.random, deadline, timeout_s, patience_s)

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, 0 when it has passed."""
        return max(self.deadline - self.clock(), 0.0)


class Circuit:
    """A circuit breaker that all calls of one client share.

    It is open while the service is taken to be unreachable. Then only one request at a time goes
    out, as a probe, whatever the number of calls.
    """

    def __init__(self) -> None:
        """Start closed: every request may go out."""
        # A forked process could inherit one lock in its locked state.
        self._lock = PerProcess(threading.Lock)
        self._num_failures = 0
        self._open_until: float | None = None

    def wait_s(self, now: float) -> float:
        """Seconds until a request may go out; 0 if it may go out now."""
        with self._lock.get():
            if self._open_until is None:
                return 0.0
            if now < self._open_until:
                return self._open_until - now
            self._open_until = now + PROBE_S
            return 0.0

    def succeeded(self) -> None:
        """Close the circuit: a request was answered."""
        with self._lock.get():
            self._num_failures = 0
            self._open_until = None

    def failed(self, now: float, pause_s: float, *, is_certain: bool) -> None:
        """Count a failure, and open the circuit if there were enough.

        Args:
            pause_s: seconds until the caller retries.
            is_certain: whether the service itself asked for the pause; opens the circuit at once.
        """
        with self._lock.get():
            self._num_failures += 1
            if is_certain or self._num_failures >= FAILURES_TO_OPEN:
                self._open_until = now + pause_s


def exchange(send: Send, call: Call, circuit: Circuit) -> Steps[Answer]:
    """Send a request, and retry it while a retry may succeed.

    Returns:
        A successful answer.

    Raises:
        ServiceError: the service refused the request, or stayed busy until the time limit.
        ServiceUnreachable: no request was answered until the time limit.
        TimedOut: the time limit passed while the circuit was open.
        UnexpectedAnswer: the answer is that to another request.
    """
    num_failures, away_since = 0, None
    while True:
        yield from _passage(call, circuit, away_since)
        request_id = new_request_id()
        headers = {**send.headers, REQUEST_ID: request_id}
        limit_s = call.left_s + GRACE_S
        read_timeout_s = min(send.read_timeout_s, limit_s)
        sent_at = call.clock()
        reply = yield replace(send, headers=headers, read_timeout_s=read_timeout_s, limit_s=limit_s)
        if isinstance(reply, Answer):
            check_request_id(reply, request_id)
        error = failure(reply)
        now = call.clock()
        if error is None:
            circuit.succeeded()
            assert isinstance(reply, Answer)
            return reply
        if not _may_pass_later(reply):
            circuit.succeeded()
            raise error
        away_since = now if away_since is None else away_since
        named_s = getattr(error, "retry_after_s", None)
        pause_s = backoff_s(num_failures, named_s, call.chance())
        circuit.failed(now, pause_s, is_certain=named_s is not None)
        if now + pause_s > min(call.deadline, away_since + call.patience_s):
            raise error
        num_failures += 1
        send = _with_shorter_wait(send, now - sent_at)
        yield Pause(pause_s, str(error))


def backoff_s(num_failures: int, named_s: float | None, chance: float) -> float:
    """Seconds to wait before the next attempt.

    Without a Retry-After: exponential backoff with full jitter
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

    Args:
        num_failures: number of failures before this one.
        named_s: the Retry-After of the service, if it sent one.
        chance: a random number of [0, 1).
    """
    if named_s is not None:
        return named_s * (1 + SPREAD * chance)
    return chance * min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(num_failures, 30))


def retry_after_s(answer: Answer) -> float | None:
    """The `Retry-After` in seconds, from a number or a date; None without one."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max((at - datetime.now(UTC)).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def failure(reply: Reply) -> EvascoreError | None:
    """The exception for a reply; None if the request succeeded."""
    if isinstance(reply, Lost):
        return ServiceUnreachable(reply.reason, says_remedy=reply.says_remedy)
    assert reply is not None
    if reply.is_success:
        return None
    return error_from_problem(_problem(reply), retry_after_s(reply))


def _problem(answer: Answer) -> dict[str, Any]:
    """The problem object of an answer; made from the status if a proxy answered in its own form."""
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        with suppress(UnexpectedAnswer):
            return _without_foreign_errors({**answer.json(), "status": answer.status})
    detail = f"{answer.described()} is not in evascore's form; {answer.doubt()}"
    return {"status": answer.status, "detail": detail}


def _without_foreign_errors(problem: dict[str, Any]) -> dict[str, Any]:
    """A problem object without its `errors`, unless they are a list of objects as evascore's are.

    RFC 9457 defines no such member. ASP.NET gateways send problem objects with an object there.
    """
    errors = problem.get("errors")
    if isinstance(errors, list) and all(isinstance(error, Mapping) for error in errors):
        return problem
    return {name: value for name, value in problem.items() if name != "errors"}


def _with_shorter_wait(send: Send, took_s: float) -> Send:
    """A long poll that the service holds for less time, if it was lost after `took_s` seconds.

    A proxy may cut each request that is not answered within its own time limit. A poll that is
    held for half of that time passes it.
    """
    wait_s = float(send.params.get("wait", 0))
    if wait_s <= MIN_CUT_S or took_s < MIN_CUT_S:
        return send
    shorter_s = max(min(wait_s, took_s) / 2, MIN_CUT_S)
    return replace(send, params={**send.params, "wait": f"{shorter_s:.3f}"})


def _may_pass_later(reply: Reply) -> bool:
    return isinstance(reply, Lost) or (isinstance(reply, Answer) and reply.status in _PASSING)


def _passage(call: Call, circuit: Circuit, away_since: float | None) -> Steps[None]:
    """Wait while the circuit is open."""
    begun = call.clock() if away_since is None else away_since
    while wait_s := circuit.wait_s(call.clock()):
        if call.left_s <= 0:
            raise TimedOut(
                f"Timed out after {call.timeout_s:g} s; the service is unreachable or too busy."
            )
        if call.clock() > begun + call.patience_s:
            detail = (
                f"The service was unreachable or too busy for {call.patience_s:g} s; try again"
                " later, or with a larger patience_s (--patience of score, next-chars and bulk)."
            )
            raise CapacityError({"detail": detail, "retryable": True}, wait_s)
        yield Pause(min(wait_s, RECHECK_S * (0.5 + call.chance()), max(call.left_s, 0.001)))
