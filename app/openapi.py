"""The API's description in OpenAPI 3.1, made from the routes' own declarations and the models."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Blueprint, Flask, Response, current_app, request
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app import __version__
from app.answers import Health, Index, Info, JobView, Problem, Stats
from app.batch_answers import BatchResult, BatchView
from app.completion_schemas import (
    Completion,
    CompletionBody,
    DetokenizeBody,
    Prompt,
    TokenizeBody,
    TokenizerInfo,
    Tokens,
)
from app.described_limits import add_limits
from app.descriptions import PARAMETERS, SCHEMA_PATH, json_body, reference
from app.errors import STATUS_BY_CODE
from app.responses import json_response
from app.schemas import ScoreBody, TextRequest
from app.served_models import served_models
from app.service import service
from contract.errors import BrokerUnavailable, ServiceError
from contract.settings import Settings

routes = Blueprint("openapi", __name__)

_MODELS: tuple[type[BaseModel], ...] = (
    *(ScoreBody, TextRequest, JobView, BatchView, BatchResult, Problem, Health, Index, Info, Stats),
    *(CompletionBody, Completion, TokenizeBody, Tokens, DetokenizeBody, Prompt, TokenizerInfo),
)
_OF_EVERY_ROUTE = ("bad_request", "uri_too_long", "internal_error")
_View = TypeVar("_View", bound=Callable[..., Response])


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route declares of itself, beside its docstring."""

    answers: dict[int, type[BaseModel] | None]
    errors: tuple[type[ServiceError], ...]
    parameters: tuple[str, ...]
    body: dict[str, Any] | None
    streams: dict[str, Any] | None
    links: dict[str, Any]


def operation(
    answers: dict[int, type[BaseModel] | None],
    *errors: type[ServiceError],
    parameters: tuple[str, ...] = (),
    body: dict[str, Any] | None = None,
    takes: type[BaseModel] | None = None,
    streams: dict[str, Any] | None = None,
    links: dict[str, Any] | None = None,
) -> Callable[[_View], _View]:
    """Declare what a route answers.

    Args:
        answers: models by status, None for an empty answer.
        errors: what it raises; their statuses are those of `app.errors`.
        parameters: names in `PARAMETERS`.
        body: the description of what it takes.
        takes: the model of what it takes, where that is always JSON.
        streams: the description of its answer 200 where that is no JSON object.
        links: what can be done with the answers of `answers`.
    """

    def declare(view: _View) -> _View:
        taken = body if takes is None else json_body(takes)
        declared = Operation(answers, errors, parameters, taken, streams, links or {})
        view.operation = declared  # type: ignore[attr-defined]
        return view

    return declare


@routes.get("/openapi.json")
def description() -> Response:
    """The API's description in OpenAPI 3.1."""
    models: list[str] = []
    with suppress(BrokerUnavailable):
        models = served_models(service())
    return json_response(describe(current_app, service().settings, models, request.script_root))


def describe(
    app: Flask, settings: Settings, models: Sequence[str] = (), root: str = ""
) -> dict[str, Any]:
    """The OpenAPI document of every route of `app` that declares itself.

    Args:
        models: what a completion can ask for; empty where that is not known.
        root: path under which the application is mounted, '' for none.
    """
    _, schemas = models_json_schema(
        [(model, "validation") for model in _MODELS], ref_template=SCHEMA_PATH
    )
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for path, method, view, declared in _declared(app):
        paths[path][method] = _operation(path, view, declared)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "evascore",
            "version": __version__,
            "description": "Scores text with EvaByte, a byte-level language model.",
        },
        "servers": [{"url": root or "/"}],
        "paths": dict(paths),
        "components": {"schemas": deepcopy(schemas["$defs"])},
    }
    add_limits(document, settings, models)
    return document


def _declared(app: Flask) -> Iterator[tuple[str, str, Any, Operation]]:
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        declared = getattr(view, "operation", None)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            if declared is not None:
                path = re.sub(r"<(\w+)>", r"{\1}", rule.rule)
                yield path, method.lower(), view, declared


def _operation(path: str, view: Any, declared: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": view.__name__,
        "summary": (view.__doc__ or "").strip(),
        "parameters": [
            *(
                {"name": n, "in": "path", "required": True, "schema": {"type": "string"}}
                for n in re.findall(r"{(\w+)}", path)
            ),
            # Of its own, for its limits may differ.
            *({"name": name, **deepcopy(PARAMETERS[name])} for name in declared.parameters),
        ],
        "responses": {
            **{
                str(status): _answer(model, declared.links)
                for status, model in declared.answers.items()
            },
            **dict(_problems(declared.errors)),
        },
    }
    if declared.body is not None:
        described["requestBody"] = declared.body
    if declared.streams is not None:
        described["responses"]["200"] = declared.streams
    return described


def _answer(model: type[BaseModel] | None, links: dict[str, Any]) -> dict[str, Any]:
    if model is None:
        return {"description": "Done."}
    return {
        "description": (model.__doc__ or "").strip(),
        "content": {"application/json": {"schema": reference(model)}},
        **({"links": links} if links else {}),
    }


def _problems(errors: tuple[type[ServiceError], ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    codes: dict[int, list[str]] = defaultdict(list)
    for code in (*(error.code for error in errors), *_OF_EVERY_ROUTE):
        codes[STATUS_BY_CODE[code]].append(code)
    for status, names in sorted(codes.items()):
        yield (
            str(status),
            {
                "description": ", ".join(names),
                "content": {"application/problem+json": {"schema": reference(Problem)}},
            },
        )
