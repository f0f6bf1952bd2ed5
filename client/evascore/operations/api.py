"""Implements the operations of the API as steps, without I/O; both drivers run them."""

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from evascore import results
from evascore.errors import (
    BodyTooLarge,
    EmptyText,
    EvascoreError,
    MalformedBody,
    NotText,
    RequestInvalid,
    TextTooLarge,
    TimedOut,
)
from evascore.operations import matching
from evascore.operations.calls import BatchRequest, fields_of_all
from evascore.operations.retrying import Call, Circuit, exchange, retry_after_s
from evascore.operations.steps import Answer, Pause, Send, Steps
from evascore.results import Batch, Info, Job, Score
from evascore.texts import Text, encode

# Longest long poll that is asked for; below the 30 s that the service allows by default.
MAX_WAIT_S = 25.0
# Read timeout beyond the time that the service may hold a request.
ANSWER_S = 30.0
# Read timeout of an upload: its answer comes when the last line is checked.
UPLOAD_ANSWER_S = 600.0
# Errors of a whole request that one of its texts, or the options of one text, can cause.
CAUSED_BY_ONE_TEXT = (RequestInvalid, MalformedBody, EmptyText, TextTooLarge, BodyTooLarge)
# A long poll that returns sooner was not held: too many requests are waiting at the service.
HELD_S = 1.0

_KEY = re.compile("[!-~]+")
_JSON = {"Content-Type": "application/json"}
_NDJSON = {"Content-Type": "application/x-ndjson"}


@dataclass(frozen=True, slots=True)
class Operations:
    """All operations of one client; they share its two circuit breakers."""

    model: str | None = None
    """Model of texts and batches that name none; None: that of the service."""
    # Two, because a service with a full queue refuses texts and still answers reads.
    submitting: Circuit = field(default_factory=Circuit)
    reading: Circuit = field(default_factory=Circuit)

    # --- jobs ---------------------------------------------------------------------------------

    def submit(
        self, fields: Mapping[str, Any], call: Call, *, key: str | None, wait_s: float = 0
    ) -> Steps[Job]:
        """Submit a job and wait up to `wait_s` seconds; retries give the same job.

        Args:
            key: the Idempotency-Key; None: random.
        """
        headers = {**_JSON, "Idempotency-Key": _checked_key(key)}
        wait_s = min(wait_s, call.left_s, MAX_WAIT_S)
        body = encode(self._with_model(fields))
        send = Send("POST", "/score", wait_s + ANSWER_S, _wait(wait_s), headers, body)
        reply = (yield from exchange(send, call, self.submitting)).json()
        matching.check_job(reply, fields)
        return results.job(reply)

    def wait(self, task_id: str, call: Call) -> Steps[Job]:
        """Wait until a job has ended."""
        reply = yield from self._follow(_job_path(task_id), call, _is_job_final)
        return results.job(_checked(reply, task_id))

    def read(self, task_id: str, call: Call) -> Steps[Job]:
        """Read a job as it is now."""
        reply = (yield from self._get(_job_path(task_id), call)).json()
        return results.job(_checked(reply, task_id))

    def cancel(self, task_id: str, call: Call) -> Steps[Job]:
        """Cancel a job that has not ended."""
        reply = (yield from self._post(f"{_job_path(task_id)}/cancel", call)).json()
        return results.job(_checked(reply, task_id))

    def erase(self, task_id: str, call: Call) -> Steps[None]:
        """Delete the text and the result of a job."""
        yield from exchange(Send("DELETE", _job_path(task_id), ANSWER_S), call, self.reading)

    def complete(self, fields: Mapping[str, Any], call: Call, *, key: str | None) -> Steps[Job]:
        """Submit a job and wait until it has ended; cancel it when the time is up."""
        job = yield from self.submit(fields, call, key=key, wait_s=MAX_WAIT_S)
        if job.is_final:
            return job
        try:
            job = yield from self.wait(job.id, call)
            matching.check_job(job.raw, fields)
            return job
        except TimedOut:
            # Nobody will read its result. The caller's error is the same if this request fails.
            yield Send("POST", f"{_job_path(job.id)}/cancel", HELD_S, limit_s=HELD_S)
            raise TimedOut(
                f"Timed out after {call.timeout_s:g} s; job {job.id} was not scored in time, and"
                " evascore asked the service to cancel it.",
                job.id,
            ) from None

    def outcomes(
        self, given: Sequence[Text | NotText], call: Call, model: str | None = None
    ) -> Steps[list[Score | EvascoreError]]:
        """Score several texts with `model`; a refused text does not stop the others.

        Args:
            given: the texts; the error of a value that is no text is its outcome.
        """
        texts = [text for text in given if isinstance(text, Text)]
        if len(texts) < len(given):
            scored = iter((yield from self.outcomes(texts, call, model)) if texts else ())
            return [next(scored) if isinstance(text, Text) else text for text in given]
        whole = fields_of_all(texts) | ({} if model is None else {"model": model})
        try:
            job = yield from self.complete(whole, call, key=None)
            pairs = zip(job.outcomes(), texts, strict=True)
            return [
                results.with_text(outcome, text.text) if isinstance(outcome, Score) else outcome
                for outcome, text in pairs
            ]
        except CAUSED_BY_ONE_TEXT as error:
            if len(texts) == 1:
                return [error]
        except EvascoreError as error:
            return [error] * len(texts)
        middle = len(texts) // 2
        first = yield from self.outcomes(texts[:middle], call, model)
        return first + (yield from self.outcomes(texts[middle:], call, model))

    # --- batches ------------------------------------------------------------------------------

    def submit_batch(self, batch: BatchRequest, call: Call, *, key: str | None) -> Steps[Batch]:
        """Upload the lines of a batch; retries give the same batch."""
        headers = {**_NDJSON, **batch.headers, "Idempotency-Key": _checked_key(key)}
        params = self._with_model(batch.params)
        send = Send("POST", "/batches", UPLOAD_ANSWER_S, params, headers, batch.body)
        reply = (yield from exchange(send, call, self.submitting)).json()
        matching.check_batch(reply, batch.num_lines)
        return results.batch(reply)

    def read_batch(self, batch_id: str, call: Call) -> Steps[Batch]:
        """Read a batch as it is now."""
        reply = (yield from self._get(_batch_path(batch_id), call)).json()
        return results.batch(_checked(reply, batch_id))

    def wait_batch(self, batch_id: str, call: Call) -> Steps[Batch]:
        """Wait until a batch has ended."""
        reply = yield from self._follow(_batch_path(batch_id), call, _is_batch_final)
        return results.batch(_checked(reply, batch_id))

    def cancel_batch(self, batch_id: str, call: Call) -> Steps[Batch]:
        """Cancel a batch that has not ended; lines that are scored stay readable."""
        path = f"{_batch_path(batch_id)}/cancel"
        return results.batch(_checked((yield from self._post(path, call)).json(), batch_id))

    def erase_batch(self, batch_id: str, call: Call) -> Steps[None]:
        """Delete the texts and the results of a batch."""
        yield from exchange(Send("DELETE", _batch_path(batch_id), ANSWER_S), call, self.reading)

    def page(
        self, batch_id: str, after: int, limit: int, call: Call, quiet_s: float | None = None
    ) -> Steps["Page"]:
        """Fetch the next lines of a batch's results; waits for the first, gives none at the end.

        Args:
            quiet_s: seconds after which it gives none although there are more; None: it waits on.
        """
        longest_s, first_at = quiet_s or MAX_WAIT_S, call.clock()
        while True:
            began, wait_s = call.clock(), min(call.left_s, longest_s, MAX_WAIT_S)
            params = {"after": str(after), "limit": str(limit), **_wait(wait_s)}
            path = f"{_batch_path(batch_id)}/results"
            answer = yield from self._get(path, call, params, wait_s)
            page = Page(answer.body.splitlines(keepends=True), _has_more(answer))
            matching.check_lines(page.lines, after)
            is_over = quiet_s is not None and call.clock() - first_at >= quiet_s
            if page.lines or not page.has_more or is_over:
                return page
            yield from _until_next_poll(
                answer,
                call,
                began,
                batch_id,
                f"result {after + 1} of batch {batch_id} is not there yet",
            )

    # --- the service --------------------------------------------------------------------------

    def info(self, call: Call) -> Steps[Info]:
        """Read the model, the outputs and the limits of the service."""
        return results.info((yield from self._get("/info", call)).json())

    def get(self, path: str, call: Call) -> Steps[dict[str, Any]]:
        """Read the JSON object at a path of the service."""
        return (yield from self._get(f"/{path.removeprefix('/')}", call)).json()

    def _with_model(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What is asked, for the model of this client unless it names one."""
        return dict(asked) if self.model is None else {"model": self.model, **asked}

    def _get(
        self, path: str, call: Call, params: Mapping[str, str] | None = None, wait_s: float = 0
    ) -> Steps[Answer]:
        send = Send("GET", path, wait_s + ANSWER_S, params or {})
        return (yield from exchange(send, call, self.reading))

    def _post(self, path: str, call: Call) -> Steps[Answer]:
        return (yield from exchange(Send("POST", path, ANSWER_S), call, self.reading))

    def _follow(
        self, path: str, call: Call, is_final: Callable[[Mapping[str, Any]], bool]
    ) -> Steps[dict[str, Any]]:
        """Long-poll a job or a batch until it has ended."""
        while True:
            began, wait_s = call.clock(), min(call.left_s, MAX_WAIT_S)
            answer = yield from self._get(path, call, _wait(wait_s), wait_s)
            reply = answer.json()
            if is_final(reply):
                return reply
            yield from _until_next_poll(answer, call, began, str(reply.get("id")), _progress(reply))


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of a batch's results: whole lines, as they came."""

    lines: list[bytes]
    has_more: bool


def new_key() -> str:
    """A random Idempotency-Key."""
    return secrets.token_hex(16)


def _checked_key(key: str | None) -> str:
    """The Idempotency-Key of the caller, or a random one.

    Raises:
        RequestInvalid: a header cannot carry it.
    """
    if key is not None and not _KEY.fullmatch(key):
        detail = "An Idempotency-Key must be visible ASCII characters without spaces."
        raise RequestInvalid({"type": RequestInvalid.code, "detail": detail})
    return key or new_key()


def _until_next_poll(
    answer: Answer, call: Call, began: float, task_id: str, progress: str
) -> Steps[None]:
    """Pause before the next poll, unless the service held this one.

    Raises:
        TimedOut: the deadline of the call has passed.
    """
    if call.left_s <= 0:
        raise TimedOut(
            f"Timed out after {call.timeout_s:g} s; {progress}. The service"
            " continues; wait again with the ID.",
            task_id,
        )
    if call.clock() - began < HELD_S:
        named_s = retry_after_s(answer) or HELD_S
        yield Pause(min(named_s * (1 + 0.25 * call.chance()), max(call.left_s, 0.001)))


def _checked(reply: dict[str, Any], asked: str) -> dict[str, Any]:
    """The job or the batch that was asked for."""
    matching.check_id(reply, asked)
    return reply


def _progress(reply: Mapping[str, Any]) -> str:
    """How far a job or a batch is, as part of a sentence."""
    kind = "job" if "state" in reply else "batch"
    state = str(reply.get("state") or reply.get("status")).lower()
    return f"{kind} {reply.get('id')} is still {state.replace('_', ' ')}"


def _has_more(answer: Answer) -> bool:
    return 'rel="next"' in answer.headers.get("link", "")


def _wait(wait_s: float) -> dict[str, str]:
    return {"wait": f"{wait_s:.3f}"} if wait_s > 0 else {}


def _job_path(task_id: str) -> str:
    return f"/score/{quote(task_id, safe='')}"


def _batch_path(batch_id: str) -> str:
    return f"/batches/{quote(batch_id, safe='')}"


def _is_job_final(reply: Mapping[str, Any]) -> bool:
    return reply.get("state") in results.FINAL_STATES


def _is_batch_final(reply: Mapping[str, Any]) -> bool:
    return reply.get("status") in results.FINAL_STATUSES
