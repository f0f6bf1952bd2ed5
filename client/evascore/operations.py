"""The operations of the API as steps; `sync.py` and `aio.py` run them."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from evascore import results
from evascore.calls import BatchRequest
from evascore.errors import ClientError, EvascoreError, TimedOut
from evascore.results import Batch, Info, Job, Score
from evascore.retrying import Call, Circuit, exchange, retry_after_s
from evascore.steps import Answer, Pause, Send, Steps
from evascore.texts import Text, encode

# The service holds a request this long at most, unless its settings say less.
MAX_WAIT_S = 25.0
# Beyond the time that the service may hold a request.
ANSWER_S = 30.0
# The answer to an upload comes when the last line is checked.
UPLOAD_ANSWER_S = 600.0
# A long poll that returns sooner than this was not held: all places to wait were taken.
HELD_S = 1.0

_JSON = {"Content-Type": "application/json"}
_NDJSON = {"Content-Type": "application/x-ndjson"}


@dataclass(frozen=True, slots=True)
class Operations:
    """All operations of one client; what they share is what they know of a service that is away."""

    # Apart, because a queue that is full refuses texts and still answers for results.
    submitting: Circuit = field(default_factory=Circuit)
    reading: Circuit = field(default_factory=Circuit)

    # --- jobs ---------------------------------------------------------------------------------

    def submit(
        self, fields: Mapping[str, Any], call: Call, *, key: str | None, wait_s: float = 0
    ) -> Steps[Job]:
        """Submit a job and wait up to `wait_s` seconds; all attempts are one job."""
        headers = {**_JSON, "Idempotency-Key": key or new_key()}
        wait_s = min(wait_s, call.left_s, MAX_WAIT_S)
        send = Send("POST", "/score", wait_s + ANSWER_S, _wait(wait_s), headers, encode(fields))
        answer = yield from exchange(send, call, self.submitting)
        return results.job(answer.json())

    def wait(self, task_id: str, call: Call) -> Steps[Job]:
        """The job once it is final."""
        return results.job((yield from self._follow(_job_path(task_id), call, _is_job_final)))

    def read(self, task_id: str, call: Call) -> Steps[Job]:
        """The job as it is now."""
        return results.job((yield from self._get(_job_path(task_id), call)).json())

    def cancel(self, task_id: str, call: Call) -> Steps[Job]:
        """End a job that has not ended."""
        return results.job((yield from self._post(f"{_job_path(task_id)}/cancel", call)).json())

    def erase(self, task_id: str, call: Call) -> Steps[None]:
        """Forget text and result of a job."""
        yield from exchange(Send("DELETE", _job_path(task_id), ANSWER_S), call, self.reading)

    def complete(self, fields: Mapping[str, Any], call: Call, *, key: str | None) -> Steps[Job]:
        """Submit a job and follow it until it is final; one that is late is cancelled."""
        job = yield from self.submit(fields, call, key=key, wait_s=MAX_WAIT_S)
        if job.is_final:
            return job
        try:
            return (yield from self.wait(job.id, call))
        except TimedOut:
            # Nobody is going to read it. Whether this is heard makes no difference to the caller.
            yield Send("POST", f"{_job_path(job.id)}/cancel", HELD_S)
            raise

    def outcomes(self, texts: Sequence[Text], call: Call) -> Steps[list[Score | EvascoreError]]:
        """What becomes of each of several texts; one that is refused does not keep the others."""
        fields = [text.fields() for text in texts]
        whole = fields[0] if len(texts) == 1 else {"items": fields}
        try:
            job = yield from self.complete(whole, call, key=None)
            return list(job.outcomes())
        except ClientError as error:
            if len(texts) == 1:
                return [error]
        except EvascoreError as error:
            return [error] * len(texts)
        middle = len(texts) // 2
        first = yield from self.outcomes(texts[:middle], call)
        return first + (yield from self.outcomes(texts[middle:], call))

    # --- batches ------------------------------------------------------------------------------

    def submit_batch(self, batch: BatchRequest, call: Call, *, key: str | None) -> Steps[Batch]:
        """Upload the lines of a batch; all attempts are one batch."""
        headers = {**_NDJSON, **batch.headers, "Idempotency-Key": key or new_key()}
        send = Send("POST", "/batches", UPLOAD_ANSWER_S, batch.params, headers, batch.body)
        return results.batch((yield from exchange(send, call, self.submitting)).json())

    def read_batch(self, batch_id: str, call: Call) -> Steps[Batch]:
        """The batch as it is now."""
        return results.batch((yield from self._get(_batch_path(batch_id), call)).json())

    def wait_batch(self, batch_id: str, call: Call) -> Steps[Batch]:
        """The batch once it is final."""
        told = yield from self._follow(_batch_path(batch_id), call, _is_batch_final)
        return results.batch(told)

    def cancel_batch(self, batch_id: str, call: Call) -> Steps[Batch]:
        """End a batch that has not ended; what is scored stays readable."""
        path = f"{_batch_path(batch_id)}/cancel"
        return results.batch((yield from self._post(path, call)).json())

    def erase_batch(self, batch_id: str, call: Call) -> Steps[None]:
        """Forget the texts and the results of a batch."""
        yield from exchange(Send("DELETE", _batch_path(batch_id), ANSWER_S), call, self.reading)

    def page(self, batch_id: str, after: int, limit: int, call: Call) -> Steps["Page"]:
        """The next lines of a batch's results, waiting for the first of them; none at the end."""
        while True:
            began, wait_s = call.clock(), min(call.left_s, MAX_WAIT_S)
            params = {"after": str(after), "limit": str(limit), **_wait(wait_s)}
            path = f"{_batch_path(batch_id)}/results"
            answer = yield from self._get(path, call, params, wait_s)
            page = Page(answer.body.splitlines(keepends=True), _has_more(answer))
            if page.lines or not page.has_more:
                return page
            yield from _until_next_poll(answer, call, began, batch_id)

    # --- the service --------------------------------------------------------------------------

    def info(self, call: Call) -> Steps[Info]:
        """What the service scores with, and what may be asked of it."""
        return results.info((yield from self._get("/info", call)).json())

    def get(self, path: str, call: Call) -> Steps[dict[str, Any]]:
        """The JSON object at a path of the service."""
        return (yield from self._get(path, call)).json()

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
        """Long-poll a path until what it tells is final."""
        while True:
            began, wait_s = call.clock(), min(call.left_s, MAX_WAIT_S)
            answer = yield from self._get(path, call, _wait(wait_s), wait_s)
            told = answer.json()
            if is_final(told):
                return told
            yield from _until_next_poll(answer, call, began, str(told.get("id")))


@dataclass(frozen=True, slots=True)
class Page:
    """Some lines of a batch's results, whole and as they came."""

    lines: list[bytes]
    has_more: bool


def new_key() -> str:
    """An Idempotency-Key that nobody else has."""
    return secrets.token_hex(16)


def _until_next_poll(answer: Answer, call: Call, began: float, task_id: str) -> Steps[None]:
    """Wait as the service asks before the next poll, unless it has held this one."""
    if call.left_s <= 0:
        raise TimedOut("the time is up; the job is not ended", task_id)
    if call.clock() - began < HELD_S:
        named_s = retry_after_s(answer) or HELD_S
        yield Pause(min(named_s * (1 + 0.25 * call.chance()), max(call.left_s, 0.001)))


def _has_more(answer: Answer) -> bool:
    return 'rel="next"' in answer.headers.get("link", "")


def _wait(wait_s: float) -> dict[str, str]:
    return {"wait": f"{wait_s:.3f}"} if wait_s > 0 else {}


def _job_path(task_id: str) -> str:
    return f"/score/{quote(task_id, safe='')}"


def _batch_path(batch_id: str) -> str:
    return f"/batches/{quote(batch_id, safe='')}"


def _is_job_final(told: Mapping[str, Any]) -> bool:
    return told.get("state") in results.FINAL_STATES


def _is_batch_final(told: Mapping[str, Any]) -> bool:
    return told.get("status") in results.FINAL_STATUSES
