"""Checks a completion request, and makes a scoring job of its prompts.

For the id that follows a prompt, a placeholder byte is scored after it. The answer is the id that
the model finds likeliest in its place.
"""

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass

from flask import Request, g

from app.requests import byte_tokens
from app.requests.body import read_json_body
from app.requests.clients import client_of
from app.requests.completion_models import CompletionBody
from app.requests.intake import check_job_bytes, check_result_bytes, priority_of
from app.service.components import Service
from contract.errors import EmptyText, TextTooLarge
from contract.grammar.invalid import invalid
from contract.grammar.json_text import parse_json
from contract.grammar.validation import validated
from contract.grammar.vocabulary import BOS_ID
from contract.messages import Job
from contract.settings import Settings

# Which byte it is changes no score before it.
_PLACEHOLDER = b"\0"


@dataclass(frozen=True, slots=True)
class Prompt:
    """The bytes of one prompt."""

    text: bytes
    has_bos: bool
    """Whether its ids begin with the begin-of-text id; then the answer shows that id."""


def read_completion(request: Request, service: Service) -> tuple[CompletionBody, list[Prompt], Job]:
    """The body of a request, its prompts and the job that scores them.

    Raises:
        ClientError: the request must change.
        Overloaded: the bodies of other requests leave no room in memory.
    """
    max_bytes = service.settings.max_body_bytes
    content = read_json_body(request, max_bytes)
    request_id, client = g.request_id, client_of(request)
    # What follows may run in a thread of its own, which must not ask Redis.
    limits_of = service.models.frozen().limits

    def checked() -> tuple[CompletionBody, list[Prompt], Job]:
        fields = parse_json(content, max_values=max_bytes)
        body = validated(fields, CompletionBody)
        settings = limits_of(body.model)
        prompts = prompts_of(body, settings)
        job = completion_job(body, prompts, settings, request_id=request_id, client=client)
        return body, prompts, job

    return service.large_work.run(len(content), checked)


def prompts_of(body: CompletionBody, settings: Settings) -> list[Prompt]:
    """Return the prompts of a request, each checked.

    Raises:
        RequestInvalid, EmptyText, TextTooLarge
    """
    given = body.prompt
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        given = [given]
    if len(given) > settings.max_items:
        raise invalid(
            f"has {len(given)} prompts; the limit is {settings.max_items}, send several requests",
            pointer="/prompt",
        )
    is_single = given is not body.prompt
    pointers = ["/prompt"] if is_single else [f"/prompt/{n}" for n in range(len(given))]
    prompts = [_prompt(each, place) for each, place in zip(given, pointers, strict=True)]
    for prompt, place in zip(prompts, pointers, strict=True):
        _check_length(len(prompt.text) + body.max_tokens, place, settings.max_text_bytes)
    return prompts


def completion_job(
    body: CompletionBody,
    prompts: Sequence[Prompt],
    settings: Settings,
    *,
    request_id: str,
    client: str = "",
) -> Job:
    """Return the job that scores `prompts` for `client`, with one item per prompt.

    Raises:
        BodyTooLarge: the model would have to read too much, or the result could be too large.
    """
    outputs = {"outputs": ["bytes", "top_k"], "top_k": max(body.logprobs or 0, 1)}
    texts = [prompt.text + _PLACEHOLDER * body.max_tokens for prompt in prompts]
    num_bytes = sum(map(len, texts))
    check_job_bytes(num_bytes, settings)
    requests = [{"text_b64": base64.b64encode(text).decode("ascii"), **outputs} for text in texts]
    result_bytes = check_result_bytes(requests, settings)
    now = time.time()
    return Job(
        requests=requests,
        num_bytes=num_bytes,
        submitted_at=now,
        deadline_at=now + settings.completion_wait_s,
        is_single=False,
        priority=priority_of(num_bytes, settings, is_one_text=len(texts) == 1),
        request_id=request_id,
        client=client,
        result_bytes=result_bytes,
        model=body.model or "",
    )


def _prompt(given: str | list[int], place: str) -> Prompt:
    if isinstance(given, str):
        return Prompt(given.encode(), has_bos=False)
    has_bos = given[:1] == [BOS_ID]
    try:
        return Prompt(byte_tokens.to_bytes(given[has_bos:]), has_bos)
    except ValueError:
        raise invalid(
            "holds a special id, which is not scored; give ids of bytes, after at most one id 1",
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
            f"A prompt and the id after it have {num_bytes} bytes; the limit is {limit_bytes}. "
            "Shorten the prompt, or set the client's max_length to this limit.",
            limit_bytes=limit_bytes,
            actual_bytes=num_bytes,
            errors=[{"detail": "is too large", "pointer": place}],
        )
