"""Routes that convert between text and ids, for lm-eval: tokenize, detokenize, tokenizer_info."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from flask import Blueprint, Response, request

from app.openapi.operation import operation
from app.requests import byte_tokens
from app.requests.body import read_json_body
from app.requests.tokenizer_models import DetokenizeBody, TokenizeBody
from app.responses.answer_memory import held
from app.responses.completion_models import Prompt, TokenizerInfo, Tokens
from app.responses.completion_views import tokenizer_view
from app.responses.json import json_response
from app.service.components import service
from contract.errors import (
    BodyTooLarge,
    BrokerUnavailable,
    MalformedBody,
    ModelNotFound,
    Overloaded,
    RequestInvalid,
    UnsupportedMediaType,
)
from contract.grammar.json_text import parse_json
from contract.grammar.validation import validated

_Body = TypeVar("_Body", TokenizeBody, DetokenizeBody)

# These routes need no API key: lm-eval 0.4.13 sends them its key only if it is on the command line.
# The parsers hold the interpreter's lock, so a larger body would hold up other requests.
_MAX_BODY_BYTES = 1024**2

routes = Blueprint("tokenizer", __name__)


@routes.post("/tokenize")
@operation(
    {200: Tokens},
    *(MalformedBody, ModelNotFound, BodyTooLarge, UnsupportedMediaType, RequestInvalid),
    *(Overloaded, BrokerUnavailable),
    takes=TokenizeBody,
)
def tokenize() -> Response:
    """Convert a text to ids, one per byte."""
    return _answer(TokenizeBody, _tokenized)


@routes.post("/detokenize")
@operation(
    {200: Prompt},
    *(MalformedBody, ModelNotFound, BodyTooLarge, UnsupportedMediaType, RequestInvalid),
    *(Overloaded, BrokerUnavailable),
    takes=DetokenizeBody,
)
def detokenize() -> Response:
    """Convert ids to their text."""
    return _answer(DetokenizeBody, _detokenized)


@routes.get("/tokenizer_info")
@operation({200: TokenizerInfo})
def tokenizer_info() -> Response:
    """Describe how text becomes ids."""
    return json_response(tokenizer_view())


def _tokenized(body: TokenizeBody) -> dict[str, Any]:
    ids = byte_tokens.encode(body.prompt, add_bos=body.add_special_tokens)
    return {"count": len(ids), "tokens": ids}


def _detokenized(body: DetokenizeBody) -> dict[str, Any]:
    return {"prompt": byte_tokens.decode_ids(body.tokens)}


def _answer(model: type[_Body], view: Callable[[_Body], dict[str, Any]]) -> Response:
    settings, target = service().settings, service().models.target
    max_bytes = min(settings.max_body_bytes, _MAX_BODY_BYTES)
    content = read_json_body(request, max_bytes)

    def parsed() -> _Body:
        return validated(parse_json(content, max_values=max_bytes), model)

    large_work = service().large_work
    body = large_work.run(len(content), parsed)
    # All models have the same ids, and yet one that is not served is refused. This may ask Redis,
    # so it must not run in the thread of a large body.
    if body.model:
        target(body.model)
    return held(json_response(large_work.run(len(content), partial(view, body))))
