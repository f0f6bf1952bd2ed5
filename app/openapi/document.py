"""Makes the OpenAPI 3.1 document from what the routes declare and from the models."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.openapi.limits import add_limits
from app.openapi.operation import Operation
from app.openapi.parameters import PARAMETERS, SCHEMA_PATH, reference
from app.requests.access import scope_of
from app.requests.models import ScoreBody
from app.requests.openai_batch import OpenAIBatchBody
from app.requests.tokenizer_models import DetokenizeBody, TokenizeBody
from app.responses.batch_models import BatchResult, BatchView
from app.responses.completion_models import Completion, Prompt, TokenizerInfo, Tokens
from app.responses.models import (
    Health,
    Index,
    Info,
    JobView,
    ModelList,
    Problem,
    Readiness,
    Stats,
)
from app.responses.openai_models import FileDeleted, FileView, OpenAIBatchView
from app.responses.problems import STATUS_BY_CODE
from contract import __version__
from contract.api_keys import Scope
from contract.errors import Forbidden, OriginNotAllowed, ServiceError, Unauthorized
from contract.grammar.completion_request import CompletionBody
from contract.grammar.text_request import TextRequest
from contract.settings import Settings

_MODELS: tuple[type[BaseModel], ...] = (
    *(ScoreBody, TextRequest, JobView, BatchView, BatchResult, Problem, Health, Index, Info, Stats),
    *(
        Readiness,
        ModelList,
        CompletionBody,
        Completion,
        OpenAIBatchBody,
        OpenAIBatchView,
        FileView,
        FileDeleted,
        TokenizeBody,
        Tokens,
        DetokenizeBody,
        Prompt,
        TokenizerInfo,
    ),
)
# Where an application keeps its `Description`.
EXTENSION = "evascore_description"
_KEY_SCHEME = "apiKey"
_SECURITY_SCHEMES = {
    _KEY_SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key of this service, such as evs_...; its operator gives them.",
    }
}
# What a route is for, by the beginning of its path; the first that fits counts.
_TAGS = (
    ("/score", "Scores", "One request scores one text or several, and waits or polls."),
    ("/batches", "Batches", "An upload has any number of lines; results can be read meanwhile."),
    ("/v1", "OpenAI's routes", "Completions, files and batches, for programs that speak these."),
    ("/token", "Tokenizer", "Bytes as token IDs and back, for lm-eval."),
    ("/detoken", "Tokenizer", "Bytes as token IDs and back, for lm-eval."),
    ("/", "Service", "Its limits, models, queue and health."),
)
_OF_EVERY_ROUTE = ("bad_request", "uri_too_long", "misdirected_request", "internal_error")


class Description:
    """Keeps the document of an application: it takes 50 ms to make, and anyone may ask for it."""

    def __init__(self, app: Flask) -> None:
        """Describe `app`, whose routes do not change any more."""
        self._app = app
        self._made_of: tuple[Settings, Sequence[str]] | None = None
        self._document: dict[str, Any] = {}

    def read(self, settings: Settings, models: Sequence[str], root: str) -> dict[str, Any]:
        """The document as `describe` makes it; do not change it."""
        if self._made_of != (settings, models):
            self._document = describe(self._app, settings, models)
            self._made_of = settings, models
        return {**self._document, "servers": _servers(root)}


def describe(
    app: Flask, settings: Settings, models: Sequence[str] = (), root: str = ""
) -> dict[str, Any]:
    """The OpenAPI document of every route of `app` that has an `@operation`.

    Args:
        models: what requests can ask for as their model; empty if it is not known.
        root: path under which the application is mounted, '' for none.
    """
    _, schemas = models_json_schema(
        [(model, "validation") for model in _MODELS], ref_template=SCHEMA_PATH
    )
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    needs_keys = settings.auth == "keys"
    for endpoint, path, method, declared in _declared(app):
        scope = scope_of(endpoint) if needs_keys else None
        view = app.view_functions[endpoint]
        paths[path][method] = _operation(path, method, view, declared, scope)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "evascore",
            "version": __version__,
            "description": "Scores text with EvaByte, a byte-level language model.",
        },
        "servers": _servers(root),
        "tags": [{"name": n, "description": text} for n, text in _tags()],
        "paths": dict(paths),
        "components": {
            "schemas": deepcopy(schemas["$defs"]),
            **({"securitySchemes": _SECURITY_SCHEMES} if needs_keys else {}),
        },
    }
    add_limits(document, settings, models)
    return document


def _servers(root: str) -> list[dict[str, str]]:
    return [{"url": root or "/"}]


def _tags() -> Iterator[tuple[str, str]]:
    yield from {name: text for _, name, text in _TAGS}.items()


def _declared(app: Flask) -> Iterator[tuple[str, str, str, Operation]]:
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        declared = getattr(view, "operation", None)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            if declared is not None:
                path = re.sub(r"<(\w+)>", r"{\1}", rule.rule)
                yield rule.endpoint, path, method.lower(), declared


def _operation(
    path: str, method: str, view: Any, declared: Operation, scope: Scope | None
) -> dict[str, Any]:
    errors = declared.errors if scope is None else (*declared.errors, Unauthorized, Forbidden)
    described: dict[str, Any] = {
        "operationId": view.__name__,
        "tags": [next(name for start, name, _ in _TAGS if path.startswith(start))],
        # A summary is plain text; only a description is Markdown.
        "summary": (view.__doc__ or "").strip().replace("`", ""),
        "parameters": [
            *(
                {"name": n, "in": "path", "required": True, "schema": {"type": "string"}}
                for n in re.findall(r"{(\w+)}", path)
            ),
            # A copy, because its limits may differ.
            *({"name": name, **deepcopy(PARAMETERS[name])} for name in declared.parameters),
        ],
        "responses": {
            **{
                str(status): _answer(model, declared.links)
                for status, model in declared.answers.items()
            },
            **dict(_problems((*errors, *_refusals(method)))),
        },
    }
    if scope is not None:
        described["security"] = [{_KEY_SCHEME: [scope]}]
    if declared.body is not None:
        described["requestBody"] = declared.body
    if declared.streams is not None:
        described["responses"]["200"] = declared.streams
    return described


def _refusals(method: str) -> tuple[type[ServiceError], ...]:
    return () if method == "get" else (OriginNotAllowed,)


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
