"""Routes that convert between text and ids, for lm-eval: tokenize, detokenize, tokenizer_info."""

from flask import Blueprint, Response, request

from app.openapi.operation import operation
from app.requests import byte_tokens
from app.requests.body import read_json
from app.requests.completion_models import DetokenizeBody, TokenizeBody
from app.responses.completion_models import Prompt, TokenizerInfo, Tokens
from app.responses.completion_views import tokenizer_view
from app.responses.json import json_response
from app.service.components import service
from contract.errors import (
    BodyTooLarge,
    BrokerUnavailable,
    MalformedBody,
    ModelNotFound,
    RequestInvalid,
    UnsupportedMediaType,
)
from contract.grammar.invalid import validated

routes = Blueprint("tokenizer", __name__)


@routes.post("/tokenize")
@operation(
    {200: Tokens},
    *(MalformedBody, ModelNotFound, BodyTooLarge, UnsupportedMediaType, RequestInvalid),
    BrokerUnavailable,
    takes=TokenizeBody,
)
def tokenize() -> Response:
    """Convert a text to ids, one per byte."""
    body = validated(_fields(), TokenizeBody)
    _check_model(body.model)
    ids = byte_tokens.encode(body.prompt, add_bos=body.add_special_tokens)
    return json_response({"count": len(ids), "tokens": ids})


@routes.post("/detokenize")
@operation(
    {200: Prompt},
    *(MalformedBody, ModelNotFound, BodyTooLarge, UnsupportedMediaType, RequestInvalid),
    BrokerUnavailable,
    takes=DetokenizeBody,
)
def detokenize() -> Response:
    """Convert ids to their text."""
    body = validated(_fields(), DetokenizeBody)
    _check_model(body.model)
    return json_response({"prompt": byte_tokens.decode_ids(body.tokens)})


@routes.get("/tokenizer_info")
@operation({200: TokenizerInfo})
def tokenizer_info() -> Response:
    """Describe how text becomes ids."""
    return json_response(tokenizer_view())


def _fields() -> dict[str, object]:
    max_bytes = service().settings.max_body_bytes
    return read_json(request, max_bytes, max_values=max_bytes)


def _check_model(asked: str | None) -> None:
    """Refuse a model that is not served, although all models have the same ids."""
    if asked:
        service().models.target(asked)
