"""When to repeat a request: what may pass later, after how long, and never in a storm.

Every request of this client may be repeated: reads are, cancelling and erasing do nothing twice,
and what is submitted carries an Idempotency-Key. So the only question is when.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from evascore.errors import (
    CapacityError,
    EvascoreError,
    ServiceUnreachable,
    TimedOut,
    error_from_problem,
)
from evascore.steps import Answer, Lost, Pause, Reply, Send, Steps

FIRST_BACKOFF_S = 0.25
MAX_BACKOFF_S = 10.0
# Of a time that the service named, the share that is added at random, so that clients come apart.
SPREAD = 0.25
# A lost connection or two is an accident; from the third on the service is taken to be away.
FAILURES_TO_OPEN = 3
# A probe that is not back after this long does not hold the next one up: it may be a long poll.
PROBE_S = 5.0
# How often a call that stands behind the circuit looks at it again; no request is sent for it.
RECHECK_S = 0.25
# Beyond the deadline of its call a request may take this long: what the service holds until then is
# answered a little later, and tells that the job goes on.
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
    """How long one call may take, and where its time and its chance come from."""

    clock: Callable[[], float]
    """Seconds that only grow."""
    chance: Callable[[], float]
    """Numbers of [0, 1)."""
    deadline: float
    """By `clock`."""
    patience_s: float
    """How long to go on while the service is away."""

    @classmethod
    def begin(cls, timeout_s: float, patience_s: float) -> "Call":
        """A call that begins now."""
        deadline = time.monotonic() + timeout_s
        return cls(time.monotonic, random.random, deadline, patience_s)

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, 0 when it has passed."""
        return max(self.deadline - self.clock(), 0.0)


class Circuit:
    """What all calls of one client know together of a service that is away.

    While it is open, one request at a time goes out as a probe, whatever the number of calls.
    """

    def __init__(self) -> None:
        """Begin closed: everything passes."""
        self._lock = threading.Lock()
        self._num_failures = 0
        self._open_until: float | None = None

    def wait_s(self, now: float) -> float:
        """Seconds until this request may go out, 0 if it may now."""
        with self._lock:
            if self._open_until is None:
                return 0.0
            if now < self._open_until:
                return self._open_until - now
            self._open_until = now + PROBE_S
            return 0.0

    def succeeded(self) -> None:
        """Let everything pass: the service serves."""
        with self._lock:
            self._num_failures = 0
            self._open_until = None

    def failed(self, now: float, pause_s: float, *, is_certain: bool) -> None:
        """Take a failure into account.

        Args:
            pause_s: when the caller will try again.
            is_certain: whether the service itself asked for the pause.
        """
        with self._lock:
            self._num_failures += 1
            if is_certain or self._num_failures >= FAILURES_TO_OPEN:
                self._open_until = now + pause_s


def exchange(send: Send, call: Call, circuit: Circuit) -> Steps[Answer]:
    """Send a request until it is answered by anything but "later".

    Returns:
        A successful answer.

    Raises:
        ServiceError: the service refused, or is still busy when patience or time end.
        ServiceUnreachable: no answer came until then.
    """
    num_failures, away_since = 0, None
    while True:
        yield from _passage(call, circuit, away_since)
        reply = yield replace(send, read_timeout_s=_read_timeout_s(send, call))
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
        yield Pause(pause_s)


def backoff_s(num_failures: int, named_s: float | None, chance: float) -> float:
    """How long to wait before the next attempt.

    Without a time named by the service: full jitter, up to twice as long after each failure
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

    Args:
        num_failures: those before this one.
        named_s: the service's Retry-After.
        chance: of [0, 1).
    """
    if named_s is not None:
        return named_s * (1 + SPREAD * chance)
    return chance * min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(num_failures, 30))


def retry_after_s(answer: Answer) -> float | None:
    """The seconds that `Retry-After` names, as a number or as a date; None without one."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max((at - datetime.now(UTC)).total_seconds(), 0.0)


def failure(reply: Reply) -> EvascoreError | None:
    """The exception that a reply stands for, None for a success."""
    if isinstance(reply, Lost):
        return ServiceUnreachable(reply.reason)
    assert reply is not None
    if reply.is_success:
        return None
    return error_from_problem(_problem(reply), retry_after_s(reply))


def _problem(answer: Answer) -> dict[str, Any]:
    """The problem object of an answer; of one that a proxy gave in its own words, its status."""
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        return {"status": answer.status, **answer.json()}
    detail = f"HTTP status {answer.status}, and not from evascore; is this its URL?"
    return {"status": answer.status, "detail": detail}


def _may_pass_later(reply: Reply) -> bool:
    return isinstance(reply, Lost) or (isinstance(reply, Answer) and reply.status in _PASSING)


def _read_timeout_s(send: Send, call: Call) -> float:
    return min(send.read_timeout_s, call.left_s + GRACE_S)


def _passage(call: Call, circuit: Circuit, away_since: float | None) -> Steps[None]:
    """Stand behind the circuit until the request may go out."""
    begun = call.clock() if away_since is None else away_since
    while wait_s := circuit.wait_s(call.clock()):
        if call.left_s <= 0:
            raise TimedOut("the time is up, and the service is away or too busy")
        if call.clock() > begun + call.patience_s:
            raise CapacityError(
                {"detail": "the service is away or too busy", "retryable": True}, wait_s
            )
        yield Pause(min(wait_s, RECHECK_S * (0.5 + call.chance()), max(call.left_s, 0.001)))
