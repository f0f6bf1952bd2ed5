"""Route of `/v1/completions`: scores prompts for the lm-eval client and other OpenAI clients."""

from contextlib import ExitStack

from flask import Blueprint, Response, g, request

from app.openapi.operation import operation
from app.requests.clients import caller_of
from app.requests.completion import read_completion
from app.responses.answer_memory import reserved
from app.responses.completion_answers import completion_answer, held_bytes
from app.responses.completion_models import Completion
from app.service.components import service
from app.service.submission import submitted
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
    limit_s = service().settings.completion_wait_s
    body, prompts, job = read_completion(request, service())
    caller = caller_of(request)
    with ExitStack() as until_sent:
        # A refusal after the scores would throw them away, and the client would pay for them again.
        until_sent.enter_context(
            reserved(service().answers, caller.client, held_bytes(body, prompts))
        )
        service().models.check_ready(job.model)
        final = until_sent.enter_context(submitted(service(), job, caller))
        del job
        response = completion_answer(service(), final(limit_s), body, prompts, g.request_id)
        if response.is_streamed:
            response.call_on_close(until_sent.pop_all().close)
        return response
