"""Route of `/v1/completions`: scores prompts for the lm-eval client and other OpenAI clients."""

import time
from functools import partial

from flask import Blueprint, Response, g, request

from app.openapi.operation import operation
from app.requests.clients import caller_of
from app.requests.completion import read_completion
from app.responses.answer_memory import check_room, held
from app.responses.completion_models import Completion
from app.responses.completion_views import completion, least_bytes, results_of
from app.responses.json import json_response
from app.service.components import service
from app.service.submission import score_now
from contract.errors import (
    BodyTooLarge,
    BrokerUnavailable,
    EmptyText,
    MalformedBody,
    ModelNotFound,
    Overloaded,
    QuotaExceeded,
    RequestInvalid,
    TextTooLarge,
    UnsupportedMediaType,
    WorkerUnavailable,
)
from contract.grammar.completion_request import CompletionBody

# The answer to one byte of a prompt takes about as long as checking this many bytes of a body.
_WORK_PER_BYTE = 50

routes = Blueprint("completions", __name__)


@routes.post("/v1/completions")
@operation(
    {200: Completion},
    MalformedBody,
    ModelNotFound,
    TextTooLarge,
    BodyTooLarge,
    UnsupportedMediaType,
    RequestInvalid,
    EmptyText,
    Overloaded,
    QuotaExceeded,
    WorkerUnavailable,
    BrokerUnavailable,
    takes=CompletionBody,
)
def complete() -> Response:
    """Score prompts, and give the likeliest id after each, in the form of OpenAI's completions."""
    settings = service().settings
    body, prompts, job = read_completion(request, service())
    # A refusal after the scores would throw them away, and the client would pay for them again.
    check_room(least_bytes(body, prompts))
    service().models.check_ready(job.model)
    caller = caller_of(request)
    record = score_now(service(), job, caller, limit_s=settings.completion_wait_s)
    results = results_of(record)
    answer = partial(
        completion,
        body,
        prompts,
        results,
        request_id=g.request_id,
        model=record.result["model"],
        now=time.time(),
    )
    num_bytes = sum(len(prompt.text) for prompt in prompts)
    return held(json_response(service().large_work.run(num_bytes * _WORK_PER_BYTE, answer)))
