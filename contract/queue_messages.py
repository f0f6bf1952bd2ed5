"""Defines the Celery message of a job on the queue: it names the job, its size and its model.

It carries the version of `contract.messages`. What does not have the form raises `Unreadable`, and
a newer major version raises `NewerFormat`.
"""

import base64
import re
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import TypeAdapter

from contract import keys
from contract.messages import VERSION, Job
from contract.versions import Unreadable, check_version, read_object, validated

# What a client may send as X-Request-Id; other names are not taken over into logs.
REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
# Celery's task protocol, version 2: args, kwargs and embedded callbacks, all empty.
_BODY = base64.b64encode(
    b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
).decode("ascii")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a job came from; a message has these fields since format 1.3, if they are known."""

    request_id: str = ""
    """Names the HTTP request in the logs of both tiers."""
    submitted_at: float = 0.0
    """Unix time, seconds; it gives the age of the oldest waiting job."""

    def fields(self) -> dict[str, str | float]:
        """The header fields that are known."""
        named: dict[str, str | float] = {
            "request_id": self.request_id,
            "submitted_at": self.submitted_at,
        }
        return {name: value for name, value in named.items() if value}


UNKNOWN_ORIGIN = Origin()


def origin_of(job: Job) -> Origin:
    """Where an accepted job came from."""
    return Origin(job.request_id, job.submitted_at)


def task_message(
    task_id: str,
    num_bytes: int,
    priority: int,
    fingerprint: str = keys.UNBOUND,
    origin: Origin = UNKNOWN_ORIGIN,
) -> bytes:
    """The message on the queue, as `message_fields` describes it."""
    return orjson.dumps(message_fields(task_id, num_bytes, priority, fingerprint, origin))


def message_fields(
    task_id: str,
    num_bytes: int,
    priority: int,
    fingerprint: str = keys.UNBOUND,
    origin: Origin = UNKNOWN_ORIGIN,
) -> dict[str, Any]:
    """The fields of a message: what `apply_async` would publish, with the ID as delivery tag.

    It names the job and its size, nothing of its content. Celery copies arguments into headers,
    events and logs; there are none. (Task protocol 2 of Celery 5.7, wire format of kombu 5.7's
    Redis transport; a contract test compares it with what Celery itself publishes.)
    """
    return {
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
            "fingerprint": fingerprint,
            "version": str(VERSION),
            **origin.fields(),
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


@dataclass(frozen=True, slots=True)
class Claim:
    """What a message on the queue says of its job."""

    task_id: str
    num_bytes: int
    priority: int
    is_redelivered: bool = False
    """Whether a worker fetched it before and did not end it."""
    fingerprint: str = keys.UNBOUND
    """Of the model whose queue it belongs to."""
    origin: Origin = UNKNOWN_ORIGIN


@dataclass(slots=True)
class _Headers:
    task: str
    id: str
    cost: int
    fingerprint: str = keys.UNBOUND
    request_id: str = ""
    submitted_at: float = 0.0


@dataclass(slots=True)
class _Properties:
    delivery_tag: str
    priority: int
    delivery_info: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Message:
    headers: _Headers
    properties: _Properties


def decode_message(raw: bytes) -> Claim:
    """The reverse of `task_message`, for a message that may have been tried before.

    Raises:
        Unreadable: also if it is a message of Celery that names no job of ours.
        NewerFormat
    """
    found = read_object(raw)
    if isinstance(headers := found.get("headers"), dict):
        check_version(headers, VERSION)
    message = validated(_MESSAGE, found)
    headers, properties = message.headers, message.properties
    is_ours = headers.task == keys.TASK and headers.id == properties.delivery_tag
    if not is_ours or properties.priority not in keys.PRIORITY_STEPS:
        raise Unreadable("not_a_job", "It is a message of Celery but names no job of evascore.")
    is_redelivered = properties.delivery_info.get("redelivered") is True
    return Claim(
        headers.id,
        headers.cost,
        properties.priority,
        is_redelivered,
        headers.fingerprint,
        Origin(headers.request_id, headers.submitted_at),
    )


def request_id_of(message: bytes) -> str:
    """The request ID that a message shows, whatever else is wrong with it; '' without one."""
    try:
        found = _field(orjson.loads(message), "headers", "request_id")
    except ValueError:
        return ""
    return found if isinstance(found, str) and REQUEST_ID.fullmatch(found) else ""


def queue_of(message: bytes) -> tuple[str, int]:
    """The fingerprint and the priority that name the queue of a message, of any release.

    Without them it is interactive, or unbound. Raises: ValueError, if it is no JSON object.
    """
    found = orjson.loads(message)
    fingerprint = _field(found, "headers", "fingerprint")
    priority = _field(found, "properties", "priority")
    return (
        fingerprint if isinstance(fingerprint, str) else keys.UNBOUND,
        keys.BULK if priority == keys.BULK else keys.INTERACTIVE,
    )


def rebound_message(message: bytes, fingerprint: str) -> bytes:
    """A message for the queue of another model; one that is none of ours stays as it is."""
    try:
        found = orjson.loads(message)
        found["headers"]["fingerprint"] = fingerprint
        return orjson.dumps(found)
    except (ValueError, LookupError, TypeError):
        return message


def _field(found: Any, *names: str) -> Any:
    """A field of nested objects; None where it is missing."""
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


_MESSAGE = TypeAdapter(_Message)
