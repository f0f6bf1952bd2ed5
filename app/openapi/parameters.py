"""Pieces of the API's description that routes refer to: parameters, bodies, streams."""

from typing import Any

from pydantic import BaseModel

from app.requests.models import (
    MAX_CUSTOM_ID_CHARS,
    MAX_NEXT_CHARS,
    MAX_TOP_K,
    OUTPUTS,
    UNITS,
    BatchOptions,
    ScoreBody,
    TextRequest,
)
from app.requests.query import QUERY_OPTIONS
from app.responses.batch_models import BatchResult

SCHEMA_PATH = "#/components/schemas/{model}"


def reference(model: type[BaseModel]) -> dict[str, str]:
    """A pointer to the schema of a model that stands in `_MODELS`."""
    return {"$ref": SCHEMA_PATH.format(model=model.__name__)}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """A request body that holds the JSON of `model`."""
    return {"required": True, "content": {"application/json": {"schema": reference(model)}}}


def events_of(view: type[BaseModel]) -> dict[str, Any]:
    """An answer of server-sent events, each with a `view` as its data."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": reference(view),
    }
    fields = {name: {"type": "string"} for name in ("event", "id")}
    event = {"type": "object", "properties": {**fields, "data": data}, "required": ["data"]}
    return {
        "description": "Server-sent events until the final state; each holds the whole state.",
        "content": {"text/event-stream": {"schema": event}},
    }


def links(parameter: str, *operations: str) -> dict[str, Any]:
    """What can be done with the ID that an answer holds."""
    parameters = {parameter: "$response.body#/id"}
    return {name: {"operationId": name, "parameters": parameters} for name in operations}


# No parameter: whether a key is free for a request is no matter of its form.
_IDEMPOTENCY = (
    "With a header `Idempotency-Key`, 1 to 255 visible ASCII characters, the same request is "
    "accepted once for the same key, for 24 hours."
)
TEXTS = {
    "required": True,
    "description": f"What is to be scored. {_IDEMPOTENCY}",
    "content": {
        "application/json": {"schema": reference(ScoreBody)},
        "text/plain": {"schema": {"type": "string", "minLength": 1}},
        "application/octet-stream": {
            "schema": {"type": "string", "format": "binary", "minLength": 1}
        },
    },
}


def _lines_of(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of NDJSON; OpenAPI 3.1 has no word for that of each line."""
    return {"type": "string", "description": f"One {model.__name__} in JSON per line."}


LINES = {
    "required": True,
    "description": (
        "One JSON object per line, plain or with Content-Encoding gzip or zstd; or, where they are "
        f"few, the objects in an array. {_IDEMPOTENCY}"
    ),
    "content": {
        "application/x-ndjson": {"schema": _lines_of(TextRequest)},
        "application/json": {
            "schema": {"type": "array", "items": reference(TextRequest), "minItems": 1}
        },
    },
}
RESULT_LINES = {
    "description": "One JSON object per line, in the order of the upload.",
    "headers": {
        "Next-After": {
            "description": "The `after` of the next page.",
            "schema": {"type": "integer"},
        },
        "Link": {
            "description": "The next page, rel=next, unless this was the last.",
            "schema": {"type": "string"},
        },
    },
    "content": {"application/x-ndjson": {"schema": _lines_of(BatchResult)}},
}
_OPTION = "For what the body does not say, where its texts can take it: as the JSON field"
_COMMAS = {"style": "form", "explode": False}
PARAMETERS: dict[str, dict[str, Any]] = {
    "wait": {
        "in": "query",
        "description": "Seconds to hold the request until the job ends; `max_wait_s` at most.",
        "schema": {"type": "number", "minimum": 0},
    },
    "Prefer": {
        "in": "header",
        "description": "`wait=n` (RFC 7240) holds the request like the query's `wait`.",
        "schema": {"type": "string"},
    },
    "Last-Event-ID": {
        "in": "header",
        "description": "ID of the last event that the client knows.",
        "schema": {"type": "string"},
    },
    "on_error": {
        "in": "query",
        "description": BatchOptions.model_fields["on_error"].description,
        "schema": {"type": "string", "enum": ["fail", "skip"], "default": "fail"},
    },
    "after": {
        "in": "query",
        "description": "How many results the reader has: those behind them are answered.",
        "schema": {"type": "integer", "minimum": 0, "default": 0},
    },
    "limit": {
        "in": "query",
        "description": "Most results in the answer; 10,000 at most.",
        "schema": {"type": "integer", "minimum": 1, "default": 1000},
    },
    "outputs": {
        "in": "query",
        "description": f"{_OPTION}, with commas between.",
        **_COMMAS,
        "schema": {
            "type": "array",
            "items": {"type": "string", "enum": list(OUTPUTS)},
            "minItems": 1,
            "maxItems": len(OUTPUTS),
        },
    },
    "spans": {
        "in": "query",
        "description": f"{_OPTION}, a unit.",
        "schema": {"type": "string", "enum": list(UNITS)},
    },
    "window": {
        "in": "query",
        "description": f"{_OPTION}: size and stride, with a comma between.",
        **_COMMAS,
        "schema": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1},
            "minItems": 2,
            "maxItems": 2,
        },
    },
    **{
        name: {"in": "query", "description": f"{_OPTION}.", "schema": schema}
        for name, schema in {
            "top_k": {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K},
            "next_chars": {"type": "integer", "minimum": 1, "maximum": MAX_NEXT_CHARS},
            "custom_id": {"type": "string", "minLength": 1, "maxLength": MAX_CUSTOM_ID_CHARS},
            "deadline_s": {"type": "number", "exclusiveMinimum": 0},
            "priority": {"type": "string", "enum": ["interactive", "bulk"]},
        }.items()
    },
}
BATCH_PARAMETERS = ("on_error", "outputs", "top_k", "deadline_s")
RESULT_PARAMETERS = ("after", "limit", "wait")
SUBMIT_PARAMETERS = ("wait", *QUERY_OPTIONS, "Prefer")
READ_PARAMETERS = ("wait", "Prefer")
