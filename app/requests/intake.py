"""Turns the fields of a request into a checked job, before anything is stored."""

from collections.abc import Mapping
from typing import Any

import orjson

from app.requests.models import ScoreBody
from contract import keys
from contract.grammar.checked_text import (
    check_fields,
    check_job_bytes,
    check_result_bytes,
    checked_request,
    read_bytes,
)
from contract.grammar.invalid import invalid
from contract.grammar.text_request import TextRequest
from contract.grammar.validation import validated
from contract.messages import Job
from contract.settings import Settings

PRIORITIES = {"interactive": keys.INTERACTIVE, "bulk": keys.BULK}


def to_job(
    fields: Mapping[str, Any],
    settings: Settings,
    *,
    now: float,
    request_id: str,
    client: str = "",
) -> Job:
    """Make the job that `fields` ask for.

    Args:
        now: Unix time, seconds.
        request_id: names the request in logs.
        client: who sent it, by whom the queue is shared.

    Raises:
        ClientError: the request must change.
    """
    _check_counts(fields, settings)
    body = validated(fields, ScoreBody)
    places = [("", body)] if body.items is None else _places(body.items)
    num_bytes = sum(read_bytes(text, at, settings) for at, text in places)
    check_job_bytes(num_bytes, settings)
    requests = [checked_request(text, body) for _, text in places]
    result_bytes = check_result_bytes(requests, settings)
    return Job(
        requests=requests,
        num_bytes=num_bytes,
        submitted_at=now,
        deadline_at=now + _deadline_s(body, settings),
        is_single=body.items is None,
        priority=_priority(body, num_bytes, settings),
        request_id=request_id,
        client=client,
        result_bytes=result_bytes,
        model=body.model or "",
    )


def canonical_json(job: Job) -> bytes:
    """Return canonical JSON, equal for two requests exactly if they ask for the same."""
    asked_s = round(job.deadline_at - job.submitted_at, 3)
    asked = [job.requests, job.is_single, job.priority, asked_s]
    # Requests without a model keep the digests that they had before models could be asked for.
    return orjson.dumps(asked + [job.model] * bool(job.model), option=orjson.OPT_SORT_KEYS)


def priority_of(num_bytes: int, settings: Settings, *, is_one_text: bool) -> int:
    """Choose a priority: texts that fill more than one micro-batch are bulk.

    One text is interactive however long: it cannot be cut.
    """
    fills_micro_batch = not is_one_text and num_bytes > settings.micro_batch_bytes
    return keys.BULK if fills_micro_batch else keys.INTERACTIVE


def _places(items: list[TextRequest]) -> list[tuple[str, TextRequest]]:
    return [(f"/items/{number}", item) for number, item in enumerate(items)]


def _check_counts(fields: Mapping[str, Any], settings: Settings) -> None:
    """Refuse too many and unknown fields first, before each of them costs time."""
    items = fields.get("items")
    items = items if isinstance(items, list) else []
    if len(items) > settings.max_items:
        raise invalid(
            f"has {len(items)} items; the limit is {settings.max_items}, send several requests",
            pointer="/items",
        )
    check_fields(fields, ScoreBody, "", settings.max_continuations)
    for number, item in enumerate(items):
        if isinstance(item, dict):
            check_fields(item, TextRequest, f"/items/{number}", settings.max_continuations)


def _deadline_s(body: ScoreBody, settings: Settings) -> float:
    asked_s = settings.deadline_s if body.deadline_s is None else body.deadline_s
    if asked_s > settings.max_deadline_s:
        raise invalid(
            f"must be at most {settings.max_deadline_s:g} seconds (max_deadline_s)",
            pointer="/deadline_s",
        )
    return asked_s


def _priority(body: ScoreBody, num_bytes: int, settings: Settings) -> int:
    if body.priority is not None:
        return PRIORITIES[body.priority]
    is_one_text = body.text is not None or body.text_b64 is not None
    return priority_of(num_bytes, settings, is_one_text=is_one_text)
