"""From the fields of a request to a checked job; every limit is met before anything is stored."""

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from app.bodies import invalid, invalid_fields, plain_name
from app.schemas import DEFAULT_TOP_K, BatchOptions, ScoreBody, SlidingWindow, TextRequest
from contract import keys
from contract.errors import BodyTooLarge, EmptyText, TextTooLarge
from contract.messages import Job
from contract.result_size import result_bytes
from contract.settings import Settings

PRIORITIES = {"interactive": keys.INTERACTIVE, "bulk": keys.BULK}
MAX_ERRORS_TOLD = 10
# Bytes that a next character may need room for: its last one is not read on.
LONGEST_CHARACTER = 3
_REQUEST_FIELDS = set(TextRequest.model_fields)
_Schema = TypeVar("_Schema", bound=BaseModel)


def to_job(fields: Mapping[str, Any], settings: Settings, *, now: float, request_id: str) -> Job:
    """The job that `fields` ask for.

    Args:
        now: Unix time, seconds.
        request_id: names the request in logs.

    Raises:
        ClientError: the request must change.
    """
    _check_counts(fields, settings)
    body = validated(fields, ScoreBody)
    texts = [body] if body.items is None else body.items
    num_bytes = _total_bytes(texts, body.items is None, settings)
    requests = [_request(text, body) for text in texts]
    check_result_bytes(requests, settings)
    return Job(
        requests=requests,
        num_bytes=num_bytes,
        submitted_at=now,
        deadline_at=now + _deadline_s(body, settings),
        is_single=body.items is None,
        priority=_priority(body, num_bytes, settings),
        request_id=request_id,
    )


class Checked(NamedTuple):
    """One text of many, as the worker takes it."""

    request: dict[str, Any]
    num_bytes: int = 0
    """What the model reads for it."""
    result_bytes: int = 0
    """What its result takes at most."""


def to_request(fields: Mapping[str, Any], shared: BatchOptions, settings: Settings) -> Checked:
    """Check one text of many.

    Raises:
        ClientError: the text must change.
    """
    _check_fields(fields, TextRequest, "", settings.max_continuations)
    text = validated(fields, TextRequest)
    num_bytes = _total_bytes([text], True, settings)
    request = _request(text, shared)
    return Checked(request, num_bytes, check_result_bytes([request], settings))


def canonical_json(job: Job) -> bytes:
    """What two requests share if and only if they ask for the same."""
    asked_s = round(job.deadline_at - job.submitted_at, 3)
    return orjson.dumps(
        [job.requests, job.is_single, job.priority, asked_s], option=orjson.OPT_SORT_KEYS
    )


def _check_counts(fields: Mapping[str, Any], settings: Settings) -> None:
    """Refuse too many and unknown fields first, before each of them costs time."""
    items = fields.get("items")
    items = items if isinstance(items, list) else []
    if len(items) > settings.max_items:
        raise invalid(f"at most {settings.max_items} items in one request", pointer="/items")
    _check_fields(fields, ScoreBody, "", settings.max_continuations)
    for number, item in enumerate(items):
        if isinstance(item, dict):
            _check_fields(item, TextRequest, f"/items/{number}", settings.max_continuations)


def _check_fields(
    fields: Mapping[str, Any], schema: type[TextRequest], at: str, max_continuations: int
) -> None:
    for name in fields:
        if name not in schema.model_fields:
            raise invalid("is not a known field", pointer=f"{at}/{plain_name(name)}".rstrip("/"))
    for name in ("continuations", "continuations_b64"):
        value = fields.get(name)
        if isinstance(value, list) and len(value) > max_continuations:
            raise invalid(
                f"at most {max_continuations} continuations of one context", pointer=f"{at}/{name}"
            )


def validated(fields: Mapping[str, Any], schema: type[_Schema]) -> _Schema:
    """The fields of a request in the form of `schema`.

    Raises:
        RequestInvalid
    """
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise invalid_fields(
            [
                {"detail": e["msg"], "pointer": "".join(f"/{step}" for step in e["loc"])}
                for e in found[:MAX_ERRORS_TOLD]
            ]
        ) from None


def _request(text: TextRequest, body: ScoreBody | BatchOptions) -> dict[str, Any]:
    """The text as the worker takes it; what an item does not say, the whole request says."""
    fields = text.model_dump(include=_REQUEST_FIELDS, exclude_none=True)
    if text.outputs is None:
        shared = {"outputs": body.outputs, "top_k": body.top_k}
        given = {name: value for name, value in shared.items() if value is not None}
        fields = {**given, **fields}
    outputs = fields.get("outputs", [])
    if "top_k" in outputs:
        fields.setdefault("top_k", DEFAULT_TOP_K)
    elif "top_k" in fields:
        fields["outputs"] = [*outputs, "top_k"]
    return fields


def _total_bytes(texts: Sequence[TextRequest], is_single: bool, settings: Settings) -> int:
    """The bytes that the model reads for all of the texts; each is checked against the limits."""
    num_bytes = sum(
        _read_bytes(text, "" if is_single else f"/items/{number}", settings)
        for number, text in enumerate(texts)
    )
    check_job_bytes(num_bytes, settings)
    return num_bytes


def check_job_bytes(num_bytes: int, settings: Settings) -> None:
    """Refuse what would have the model read more than one job may.

    Raises:
        BodyTooLarge
    """
    if num_bytes > settings.max_job_bytes:
        raise BodyTooLarge(
            f"The model would have to read {num_bytes} bytes; "
            f"the limit is {settings.max_job_bytes}, send several requests.",
            limit_bytes=settings.max_job_bytes,
            actual_bytes=num_bytes,
        )


def check_result_bytes(requests: Sequence[Mapping[str, Any]], settings: Settings) -> int:
    """Refuse what would have a result larger than a job's may be; return what it takes at most.

    Raises:
        BodyTooLarge
    """
    num_bytes = sum(map(result_bytes, requests))
    if num_bytes > settings.max_result_bytes:
        raise BodyTooLarge(
            f"The result could take {num_bytes} bytes; the limit is {settings.max_result_bytes}, "
            "ask for less of each byte (top_k, bytes, spans) or send several requests.",
            limit_bytes=settings.max_result_bytes,
            actual_bytes=num_bytes,
        )
    return num_bytes


def _read_bytes(request: TextRequest, at: str, settings: Settings) -> int:
    """The bytes read for one request, a context once; each scored text is checked with it."""
    if request.window is not None and request.window.size > settings.max_text_bytes:
        limit = f"at most {settings.max_text_bytes} (max_text_bytes)"
        raise invalid(limit, pointer=f"{at}/window/size")
    context_bytes = sum(length for _, length in _lengths(request, ("context",), at))
    num_bytes = context_bytes
    for place, length in _lengths(request, ("text", "continuation", "continuations"), at):
        if not length and request.next_chars is None:
            raise EmptyText(
                "There is nothing to score; give at least one byte.",
                errors=[{"detail": "is empty", "pointer": place}],
            )
        _check_length(request, context_bytes + length, place, settings)
        num_bytes += length
    if request.window is not None:
        return _windowed_bytes(num_bytes, request.window)
    # For what follows the empty text the model reads the mark of its beginning.
    return max(num_bytes, 1)


def _check_length(request: TextRequest, num_bytes: int, place: str, settings: Settings) -> None:
    limit_bytes, remedy = settings.max_text_bytes, "split it"
    if request.window is not None:
        limit_bytes = settings.max_windowed_bytes
    elif request.next_chars is not None:
        limit_bytes, remedy = limit_bytes - LONGEST_CHARACTER, "send only its end"
    elif request.text is not None or request.text_b64 is not None:
        remedy = "split it or give a window"
    if num_bytes > limit_bytes:
        raise TextTooLarge(
            f"The text (with its context) has {num_bytes} bytes; the limit is {limit_bytes}, "
            f"{remedy}.",
            limit_bytes=limit_bytes,
            actual_bytes=num_bytes,
            errors=[{"detail": "is too large", "pointer": place}],
        )


def _windowed_bytes(num_bytes: int, window: SlidingWindow) -> int:
    """The bytes read for a text in windows: each whole but for the last, which ends with it."""
    stride = min(window.stride, window.size)
    further = -(-max(num_bytes - window.size, 0) // stride)
    return further * window.size + num_bytes - further * stride


def _lengths(request: TextRequest, names: Iterable[str], at: str) -> Iterator[tuple[str, int]]:
    """The pointer to each of the texts named, in either form, and its bytes."""
    for name in names:
        for field, count in ((name, _utf8_bytes), (f"{name}_b64", _base64_bytes)):
            value, place = getattr(request, field), f"{at}/{field}"
            if isinstance(value, str):
                yield place, count(value, place)
            for number, text in enumerate(value if isinstance(value, list) else ()):
                yield f"{place}/{number}", count(text, f"{place}/{number}")


def _utf8_bytes(text: str, _place: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _base64_bytes(text: str, place: str) -> int:
    try:
        return len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise invalid("is not standard base64 with padding", pointer=place) from None


def _deadline_s(body: ScoreBody, settings: Settings) -> float:
    asked_s = settings.deadline_s if body.deadline_s is None else body.deadline_s
    if asked_s > settings.max_deadline_s:
        raise invalid(f"at most {settings.max_deadline_s:g} seconds", pointer="/deadline_s")
    return asked_s


def _priority(body: ScoreBody, num_bytes: int, settings: Settings) -> int:
    if body.priority is not None:
        return PRIORITIES[body.priority]
    is_one_text = body.text is not None or body.text_b64 is not None
    return priority_of(num_bytes, settings, is_one_text=is_one_text)


def priority_of(num_bytes: int, settings: Settings, *, is_one_text: bool) -> int:
    """Texts that fill more than one batch are bulk unless they ask otherwise.

    One text is interactive however long: it cannot be cut.
    """
    fills_batch = not is_one_text and num_bytes > settings.micro_batch_bytes
    return keys.BULK if fills_batch else keys.INTERACTIVE
