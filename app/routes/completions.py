"""Route of `/v1/completions`: scores prompts for the lm-eval client and other OpenAI clients."""

import time

from flask import Blueprint, Response, g, request

from app.openapi.operation import operation
from app.requests.body import read_json
from app.requests.clients import client_of
from app.requests.completion import completion_job, prompts_of
from app.requests.completion_models import CompletionBody
from app.responses.completion_models import Completion
from app.responses.completion_views import completion, results_of
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
    RequestInvalid,
    TextTooLarge,
    UnsupportedMediaType,
    WorkerUnavailable,
)
from contract.grammar.invalid import validated

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
    WorkerUnavailable,
    BrokerUnavailable,
    takes=CompletionBody,
)
def complete() -> Response:
    """Score prompts, and give the likeliest id after each, in the form of OpenAI's completions."""
    max_bytes = service().settings.max_body_bytes
    fields = read_json(request, max_bytes, max_values=max_bytes)
    body = validated(fields, CompletionBody)
    settings = service().models.limits(body.model)
    prompts = prompts_of(body, settings)
    job = completion_job(
        body, prompts, settings, request_id=g.request_id, client=client_of(request)
    )
    service().models.check_ready(job.model)
    record = score_now(
        service(),
        job,
        limit_s=settings.completion_wait_s,
        note_progress=lambda: service().progress.note(request.environ),
    )
    answer = completion(
        body,
        prompts,
        results_of(record),
        request_id=g.request_id,
        model=record.result["model"],
        now=time.time(),
    )
    return json_response(answer)
