"""Defines what travels through Redis: a job's payload, its record and its Celery message.

The record is Celery's result-backend entry with two more fields (`job`, `finished_at`), so
`AsyncResult`, Flower and result expiry work on it. The status comes first, because the Lua scripts
look for it there.
"""

import base64
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import orjson

from contract import keys
from contract.errors import BY_CODE, JobCancelled, ServiceError, error_body

State = Literal["QUEUED", "STARTED", "SUCCESS", "FAILURE", "REVOKED"]
FINAL_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED"})


@dataclass(frozen=True, slots=True)
class Job:
    """One accepted POST: its texts with their options, and when it must be done."""

    requests: list[dict[str, Any]]
    """One per text, in the form that the model's `ScoreRequest.from_json` reads."""
    num_bytes: int
    """Bytes that the model has to read; budgets and admission control count them. Those of a part
    of a batch are its bytes of work (`contract.batches.Part`)."""
    submitted_at: float
    """Unix time, seconds."""
    deadline_at: float
    """Unix time, seconds; a job that has not begun by then expires."""
    is_single: bool = True
    """Whether the result is that of one text, not a list of items."""
    priority: int = keys.INTERACTIVE
    request_id: str = ""
    """Names the HTTP request in the logs of both tiers."""

    def facts(self) -> dict[str, Any]:
        """The facts of the job that its record holds from the start."""
        return {
            "num_texts": len(self.requests),
            "num_bytes": self.num_bytes,
            "submitted_at": self.submitted_at,
            "deadline_at": self.deadline_at,
            "is_single": self.is_single,
            "priority": self.priority,
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
    return orjson.dumps(job)


def decode_payload(payload: bytes) -> Job:
    """The reverse of `encode_payload`."""
    return Job(**orjson.loads(payload))


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


REVOKING_CODES = frozenset({JobCancelled.code, "job_expired"})


def error_from_body(body: dict[str, Any]) -> ServiceError:
    """The reverse of `error_body`; an unknown code becomes a plain ServiceError."""
    details = {k: v for k, v in body.items() if k not in ("code", "message", "retryable")}
    return BY_CODE.get(body["code"], ServiceError)(body["message"], **details)


def decode_record(task_id: str, raw: bytes) -> Record:
    """Read a record that this module, or Celery itself, wrote."""
    meta = orjson.loads(raw)
    state, result = meta["status"], meta["result"]
    failed = state in ("FAILURE", "REVOKED")
    apart = meta.get("apart")
    return Record(
        task_id=task_id,
        state=state,
        result=None if failed or apart else result,
        error=_error_of(result) if failed else None,
        job=meta.get("job", {}),
        finished_at=meta.get("finished_at"),
        apart=Apart(apart["num_bytes"], apart["num_errors"]) if apart else None,
    )


def _error_of(result: dict[str, Any]) -> dict[str, Any]:
    if "code" not in result:  # `AsyncResult.revoke` and other writers of Celery's own form
        return error_body(JobCancelled("The job was cancelled before it was scored."))
    return {k: v for k, v in result.items() if not k.startswith("exc_")}


def _record(
    state: str,
    result: Any,
    task_id: str,
    facts: dict[str, Any],
    finished_at: float | None,
    apart: Apart | None = None,
) -> bytes:
    return orjson.dumps(
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
        }
    )


# Celery's task protocol, version 2: args, kwargs and embedded callbacks, all empty.
_BODY = base64.b64encode(
    b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
).decode("ascii")


def task_message(task_id: str, num_bytes: int, priority: int) -> bytes:
    """The message on the queue: what `apply_async` would publish, with the ID as delivery tag.

    It names the job and its size, nothing of its content. Celery copies arguments into headers,
    events and logs; there are none. (Task protocol 2 of Celery 5.7, wire format of kombu 5.7's
    Redis transport; a contract test compares it with what Celery itself publishes.)
    """
    return orjson.dumps(
        {
            "body": _BODY,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": keys.TASK,
                "id": task_id,
                "shadow": None,
                "eta": None,
                "expires": None,
                "group": None,
                "group_index": None,
                "retries": 0,
                "timelimit": [None, None],
                "root_id": task_id,
                "parent_id": None,
                "argsrepr": "-",
                "kwargsrepr": "-",
                "origin": "evascore",
                "ignore_result": False,
                "replaced_task_nesting": 0,
                "stamped_headers": None,
                "stamps": {},
                "cost": num_bytes,
            },
            "properties": {
                "correlation_id": task_id,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": keys.QUEUE},
                "priority": priority,
                "body_encoding": "base64",
                "delivery_tag": task_id,
            },
        }
    )
