"""`POST /v1/completions` as far as scoring goes: what the stock lm-eval client asks for.

A completion is an ordinary job whose connection is held until it ends. For the id that follows a
prompt, a byte is scored after it: what is likeliest in its place is the answer.
"""

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flask import Blueprint, Response, g, request

from app.openapi.operation import operation
from app.requests import byte_tokens
from app.requests.body import read_json
from app.requests.completion_models import CompletionBody
from app.requests.intake import (
    check_job_bytes,
    check_result_bytes,
    priority_of,
    validated,
)
from app.requests.invalid import invalid
from app.responses.completion_models import Completion
from app.responses.completion_views import Prompt, completion
from app.responses.json import json_response
from app.service.parts import Service, service
from app.service.served_models import served_models
from contract.errors import (
    BodyTooLarge,
    BrokerUnavailable,
    EmptyText,
    JobNotFound,
    MalformedBody,
    Overloaded,
    RequestInvalid,
    TextTooLarge,
    UnsupportedMediaType,
    WorkerUnavailable,
)
from contract.grammar.vocabulary import BOS_ID
from contract.messages import Job, Record, error_from_body
from contract.settings import Settings
from contract.store.job_store import QueueFull

routes = Blueprint("completions", __name__)

# Scored in the place of the id that follows a prompt; which byte it is changes nothing before it.
_PLACEHOLDER = b"\0"


@routes.post("/v1/completions")
@operation(
    {200: Completion},
    MalformedBody,
    TextTooLarge,
    BodyTooLarge,
    UnsupportedMediaType,
    RequestInvalid,
    EmptyText,
    Overloaded,
    WorkerUnavailable,
    BrokerUnavailable,
    takes=CompletionBody,
)
def complete() -> Response:
    """Score prompts and give the likeliest id after each, in the form of OpenAI's completions."""
    settings = service().settings
    fields = read_json(request, settings.max_body_bytes, max_values=settings.max_body_bytes)
    body = validated(fields, CompletionBody)
    prompts = prompts_of(body, settings)
    job = _job(body, prompts, settings)
    _check_model(body.model)
    with _submitted(job) as waiting:
        record = _ended(waiting, settings.completion_wait_s)
    answer = completion(
        body,
        prompts,
        _results(record),
        request_id=g.request_id,
        model=record.result["model"]["name"],
        now=time.time(),
    )
    return json_response(answer)


def _check_model(name: str | None) -> None:
    """Refuse at once what no worker would score, rather than when the client has waited."""
    served = served_models(service())
    if not served:
        raise WorkerUnavailable("No worker is warm; one that starts loads its model first.")
    if name is not None and name not in served:
        raise invalid(f"is not served; served: {', '.join(served)}", pointer="/model")


# --- the job --------------------------------------------------------------------------------------


def prompts_of(body: CompletionBody, settings: Settings) -> list[Prompt]:
    """The prompts of a request, each checked.

    Raises:
        RequestInvalid, EmptyText, TextTooLarge
    """
    given = body.prompt
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        given = [given]
    if len(given) > settings.max_items:
        raise invalid(f"at most {settings.max_items} prompts in one request", pointer="/prompt")
    is_single = given is not body.prompt
    pointers = ["/prompt"] if is_single else [f"/prompt/{n}" for n in range(len(given))]
    prompts = [_prompt(each, place) for each, place in zip(given, pointers, strict=True)]
    for prompt, place in zip(prompts, pointers, strict=True):
        _check_length(len(prompt.text) + body.max_tokens, place, settings.max_text_bytes)
    return prompts


def _prompt(given: str | list[int], place: str) -> Prompt:
    if isinstance(given, str):
        return Prompt(given.encode(), has_bos=False)
    has_bos = given[:1] == [BOS_ID]
    try:
        return Prompt(byte_tokens.to_bytes(given[has_bos:]), has_bos)
    except ValueError:
        raise invalid(
            "holds a special id that is no begin-of-text at its beginning; only bytes are scored",
            pointer=place,
        ) from None


def _check_length(num_bytes: int, place: str, limit_bytes: int) -> None:
    if not num_bytes:
        raise EmptyText(
            "There is nothing to score; give at least one byte, or set max_tokens to 1.",
            errors=[{"detail": "is empty", "pointer": place}],
        )
    if num_bytes > limit_bytes:
        raise TextTooLarge(
            f"A prompt has {num_bytes} bytes with what follows it; the limit is {limit_bytes}, "
            "set the client's max_length to it.",
            limit_bytes=limit_bytes,
            actual_bytes=num_bytes,
            errors=[{"detail": "is too large", "pointer": place}],
        )


def _job(body: CompletionBody, prompts: list[Prompt], settings: Settings) -> Job:
    outputs = {"outputs": ["bytes", "top_k"], "top_k": max(body.logprobs or 0, 1)}
    texts = [prompt.text + _PLACEHOLDER * body.max_tokens for prompt in prompts]
    num_bytes = sum(map(len, texts))
    check_job_bytes(num_bytes, settings)
    requests = [{"text_b64": base64.b64encode(text).decode("ascii"), **outputs} for text in texts]
    check_result_bytes(requests, settings)
    now = time.time()
    return Job(
        requests=requests,
        num_bytes=num_bytes,
        submitted_at=now,
        deadline_at=now + settings.completion_wait_s,
        is_single=False,
        priority=priority_of(num_bytes, settings, is_one_text=len(texts) == 1),
        request_id=g.request_id,
    )


@contextmanager
def _submitted(job: Job) -> Iterator[Record]:
    """A job that is forgotten in the end: nobody else has its task ID."""
    parts = service()
    try:
        receipt = parts.store.submit(job)
    except QueueFull as full:
        raise parts.capacity.overloaded(full.depth, parts.settings) from None
    try:
        yield Record(receipt.task_id, "QUEUED", job=job.facts())
    finally:
        with suppress(BrokerUnavailable, JobNotFound):
            parts.store.erase(receipt.task_id)


def _ended(record: Record, limit_s: float) -> Record:
    """The record of the job when it is final.

    Raises:
        Overloaded: it did not end in time, or too many requests wait already.
    """
    parts = service()
    until = time.monotonic() + limit_s
    while not record.is_final:
        began_at = time.monotonic()
        # Shorter than the edge lets a request hold a thread unless it gets on.
        pause_s = min(until - began_at, parts.settings.web_timeout_s / 2)
        record = parts.endings.wait(record, pause_s)
        parts.pace.progressed(request.environ)
        if not record.is_final and time.monotonic() < began_at + pause_s * 0.9:
            raise _overloaded(parts, "Too many requests wait already; try again later.")
        if not record.is_final and time.monotonic() >= until:
            raise _overloaded(
                parts,
                f"The prompts were not scored in {limit_s:g} s; send fewer at a time, or later.",
            )
    return record


def _overloaded(parts: Service, message: str) -> Overloaded:
    depth = parts.store.depth()
    return Overloaded(message, retry_after_s=parts.capacity.retry_after_s(depth.bytes))


def _results(record: Record) -> list[dict[str, Any]]:
    """The scores of each text.

    Raises:
        ServiceError: of the job, or of the first text that could not be scored.
    """
    if record.error is not None:
        raise error_from_body(record.error)
    for item in record.result["items"]:
        if "error" in item:
            raise error_from_body(item["error"])
    return [item["result"] for item in record.result["items"]]
