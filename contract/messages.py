"""Defines what Redis keeps of a job: its payload and its record.

The record is Celery's result-backend entry with two more fields (`job`, `finished_at`), so
`AsyncResult`, Flower and result expiry work on it. The status comes first, because the Lua scripts
look for it there.

Both carry the version of this format, and so does the message in `queue_messages.py`. Readers drop
fields that they do not know. What does not have the form raises `Unreadable`, and a newer major
version raises `NewerFormat`.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

import orjson
from pydantic import TypeAdapter

from contract import keys
from contract.errors import BY_CODE, JobCancelled, JobExpired, ServiceError, error_body
from contract.grammar.result_json import dump_result
from contract.versions import Unreadable, Version, check_version, read_object, validated

# Raise the minor number for a new field, and the major number when older workers must not read a
# job. 1.0 is release 0.1.0, which wrote no version.
VERSION = Version(1, 4)

State = Literal["QUEUED", "STARTED", "SUCCESS", "FAILURE", "REVOKED"]
FINAL_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
REVOKING_CODES = frozenset({JobCancelled.code, JobExpired.code})
"""The codes of errors that make a job REVOKED, not FAILURE."""

KEY_CLIENT = "key:"
"""The name of a client with an API key begins with this; an address never does."""


def owner_of(client: str) -> str:
    """The name of the key of a client; '' for one that is known by its address."""
    return client.removeprefix(KEY_CLIENT) if client.startswith(KEY_CLIENT) else ""


@dataclass(frozen=True, slots=True)
class Job:
    """One accepted POST: its texts with their options, and when it must be done."""

    requests: list[dict[str, Any]]
    """One per text, in the form that the model's `ScoreRequest.from_json` reads."""
    num_bytes: int
    """Bytes of the texts that the model has to read. Those of a part of a batch are its bytes of
    work (`contract.batches.Part`)."""
    submitted_at: float
    """Unix time, seconds."""
    deadline_at: float
    """Unix time, seconds; a job that has not begun by then expires."""
    is_single: bool = True
    """Whether the result is that of one text, not a list of items."""
    priority: int = keys.INTERACTIVE
    request_id: str = ""
    """Names the HTTP request in the logs of both tiers."""
    result_bytes: int = 0
    """Most bytes of JSON that its result takes; admission promises room for it."""
    may_store_apart: bool = True
    """Whether the web server that accepted the job reads results that are stored apart."""
    client: str = ""
    """Who sent it: a key or an address; clients share the queue and each micro-batch."""
    model: str = ""
    """The model that was asked for, '' for none; once the job is bound, the name of its model."""
    fingerprint: str = keys.UNBOUND
    """Of the model that scores it; it names the queue."""
    is_pinned: bool = False
    """Whether the request named the fingerprint, so that no other model may score it."""
    traceparent: str = ""
    """Names the span of the HTTP request; '' where traces are off."""

    @property
    def work_bytes(self) -> int:
        """Bytes of work, which the queue counts: a next character costs about as much as a byte."""
        return self.num_bytes + sum(fields.get("next_chars") or 0 for fields in self.requests)

    @property
    def owner(self) -> str:
        """The name of the key that it was sent with; '' if no key is needed."""
        return owner_of(self.client)

    def facts(self) -> dict[str, Any]:
        """The facts of the job that its record holds from the start."""
        return {
            # First: `stored.lua` looks for it there.
            "client": self.client,
            "num_texts": len(self.requests),
            "num_bytes": self.num_bytes,
            "submitted_at": self.submitted_at,
            "deadline_at": self.deadline_at,
            "is_single": self.is_single,
            "priority": self.priority,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "is_pinned": self.is_pinned,
        }


class Apart(NamedTuple):
    """A result that is stored compressed under a key of its own."""

    num_bytes: int
    """Of its JSON, uncompressed."""
    num_errors: int
    """Items that failed."""


@dataclass(frozen=True, slots=True)
class Record:
    """The state of a job, and its outcome when final."""

    task_id: str
    state: State
    result: Any = None
    error: dict[str, Any] | None = None
    """`code`, `message`, `retryable` and details, in FAILURE and REVOKED."""
    job: dict[str, Any] = field(default_factory=dict)
    finished_at: float | None = None
    """Unix time, seconds."""
    apart: Apart | None = None
    """Where the result is large: then `result` is None, and the store reads it."""

    @property
    def is_final(self) -> bool:
        """Whether the state can never change again."""
        return self.state in FINAL_STATES


def encode_payload(job: Job) -> bytes:
    """The job as its payload key stores it."""
    return orjson.dumps(
        {"version": str(VERSION), **{each.name: getattr(job, each.name) for each in fields(Job)}}
    )


def decode_payload(payload: bytes) -> Job:
    """The reverse of `encode_payload`. Raises: Unreadable, NewerFormat."""
    found = read_object(payload)
    check_version(found, VERSION)
    # Release 0.1 reads a result from its record only.
    return validated(_JOB, {"may_store_apart": False, **found})


def queued_record(task_id: str, facts: dict[str, Any]) -> bytes:
    """The first record of a job, with its `Job.facts`."""
    return _record("QUEUED", None, task_id, facts, None)


def success_record(
    task_id: str,
    result: Any,
    facts: dict[str, Any],
    finished_at: float,
    apart: Apart | None = None,
) -> bytes:
    """The final record of a scored job; with `apart`, `result` only says where the result is."""
    return _record("SUCCESS", result, task_id, facts, finished_at, apart)


def rebound_record(record: bytes, model: str, fingerprint: str) -> bytes:
    """The record of a job that is bound to another model now."""
    found = orjson.loads(record)
    found["job"] = {**found.get("job", {}), "model": model, "fingerprint": fingerprint}
    return orjson.dumps(found)


def failure_record(
    task_id: str, error: ServiceError, facts: dict[str, Any], finished_at: float
) -> bytes:
    """The final record of a job that was not scored; REVOKED if it was cancelled or expired."""
    state = "REVOKED" if error.code in REVOKING_CODES else "FAILURE"
    # Celery's clients rebuild the exception from exc_*; ours read the other fields.
    described = {
        "exc_type": type(error).__name__,
        "exc_message": [error.message],
        "exc_module": "contract.errors",
        **error_body(error),
    }
    return _record(state, described, task_id, facts, finished_at)


def job_cancelled() -> JobCancelled:
    """The error of a job that its client cancelled."""
    return JobCancelled("The job was cancelled before it was scored.")


def error_from_body(body: dict[str, Any]) -> ServiceError:
    """The reverse of `error_body`; an unknown code becomes a plain ServiceError."""
    details = {k: v for k, v in body.items() if k not in ("code", "message", "retryable")}
    return BY_CODE.get(body["code"], ServiceError)(body["message"], **details)


def decode_record(task_id: str, raw: bytes) -> Record:
    """Read a record that this module, or Celery itself, wrote. Raises: Unreadable, NewerFormat."""
    found = read_object(raw)
    check_version(found, VERSION)
    meta = validated(_STORED_RECORD, found)
    failed = meta.status in ("FAILURE", "REVOKED")
    return Record(
        task_id=task_id,
        state=meta.status,
        result=None if failed or meta.apart else meta.result,
        error=_error_of(meta.result) if failed else None,
        job=meta.job,
        finished_at=meta.finished_at,
        apart=meta.apart,
    )


@dataclass(slots=True)
class _StoredRecord:
    """The fields of a stored record that readers use."""

    status: State
    result: Any
    job: dict[str, Any] = field(default_factory=dict)
    finished_at: float | None = None
    apart: Apart | None = None


def _error_of(result: Any) -> dict[str, Any]:
    if not isinstance(result, dict):
        raise Unreadable("wrong_fields", "Wrong or missing: result.")
    # `AsyncResult.revoke` and other writers of Celery's own form.
    if not {"code", "message", "retryable"} <= result.keys():
        return error_body(job_cancelled())
    return {k: v for k, v in result.items() if not k.startswith("exc_")}


def _record(
    state: str,
    result: Any,
    task_id: str,
    facts: dict[str, Any],
    finished_at: float | None,
    apart: Apart | None = None,
) -> bytes:
    return dump_result(
        {
            "status": state,
            "result": result,
            "traceback": None,
            "children": [],
            "date_done": None,
            "task_id": task_id,
            "job": facts,
            "finished_at": finished_at,
            **({"apart": apart._asdict()} if apart else {}),
            "version": str(VERSION),
        }
    )


_JOB = TypeAdapter(Job)
_STORED_RECORD = TypeAdapter(_StoredRecord)
