"""Checks a completion request, and makes a scoring job of its prompts."""

from collections.abc import Sequence

from flask import Request, g

from app.requests.body import read_json_body
from app.requests.clients import client_of
from app.requests.intake import priority_of
from app.service.components import Service
from contract.grammar.checked_text import check_job_bytes, check_result_bytes
from contract.grammar.completion_request import (
    CompletionBody,
    Prompt,
    prompts_of,
    texts_to_score,
    without_prompts,
)
from contract.grammar.json_text import parse_json
from contract.grammar.validation import validated
from contract.messages import Job
from contract.settings import Settings


def read_completion(request: Request, service: Service) -> tuple[CompletionBody, list[Prompt], Job]:
    """The body of a request without its prompts, the prompts, and the job that scores them.

    Raises:
        ClientError: the request must change.
        Overloaded: the bodies of other requests leave no room in memory.
    """
    max_bytes = service.settings.max_body_bytes
    content = read_json_body(request, max_bytes)
    now, request_id, client = service.jobs.now(), g.request_id, client_of(request)
    # What follows may run in a thread of its own, which must not ask Redis.
    limits_of = service.models.frozen().limits

    def checked() -> tuple[CompletionBody, list[Prompt], Job]:
        fields = parse_json(content, max_values=max_bytes)
        body = validated(fields, CompletionBody)
        settings = limits_of(body.model)
        prompts = prompts_of(
            body, max_items=settings.max_items, max_text_bytes=settings.max_text_bytes
        )
        job = completion_job(body, prompts, settings, now=now, request_id=request_id, client=client)
        return without_prompts(body), prompts, job

    return service.large_work.run(len(content), checked)


def completion_job(
    body: CompletionBody,
    prompts: Sequence[Prompt],
    settings: Settings,
    *,
    now: float,
    request_id: str,
    client: str = "",
) -> Job:
    """Return the job that scores `prompts` for `client`, with one item per prompt.

    Args:
        now: Unix time, seconds.

    Raises:
        BodyTooLarge: the model would have to read too much, or the result could be too large.
    """
    num_bytes = sum(len(prompt.text) + body.max_tokens for prompt in prompts)
    check_job_bytes(num_bytes, settings)
    requests = texts_to_score(body, prompts)
    result_bytes = check_result_bytes(requests, settings)
    return Job(
        requests=requests,
        num_bytes=num_bytes,
        submitted_at=now,
        deadline_at=now + settings.completion_wait_s,
        is_single=False,
        priority=priority_of(num_bytes, settings, is_one_text=len(prompts) == 1),
        request_id=request_id,
        client=client,
        result_bytes=result_bytes,
        model=body.model or "",
    )
