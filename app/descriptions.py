"""Pieces of the API's description that routes refer to: parameters, bodies, streams."""

from typing import Any

from pydantic import BaseModel

from app.batch_answers import BatchResult
from app.bodies import QUERY_OPTIONS
from app.schemas import UNITS, BatchOptions, ScoreBody, TextRequest

SCHEMA_PATH = "#/components/schemas/{model}"


def reference(model: type[BaseModel]) -> dict[str, str]:
    """A pointer to the schema of a model that stands in `_MODELS`."""
    return {"$ref": SCHEMA_PATH.format(model=model.__name__)}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """A request body that holds the JSON of `model`."""
    return {"required": True, "content": {"application/json": {"schema": reference(model)}}}


TEXTS = {
    "required": True,
    "content": {
        "application/json": {"schema": reference(ScoreBody)},
        "text/plain": {"schema": {"type": "string", "minLength": 1}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
LINES = {
    "required": True,
    "description": "One JSON object per line; plain, or with Content-Encoding gzip or zstd.",
    "content": {
        "application/x-ndjson": {"schema": reference(TextRequest)},
        "application/jsonl": {"schema": reference(TextRequest)},
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
    "content": {"application/x-ndjson": {"schema": reference(BatchResult)}},
}
EVENTS = {
    "description": "Server-sent events until the final state; each holds the whole state.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
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
    "Idempotency-Key": {
        "in": "header",
        "description": "The same key with the same request is the same job, for 24 hours.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
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
        "description": "For raw bodies and batches: as the JSON field, separated by commas.",
        "schema": {"type": "string"},
    },
    "spans": {
        "in": "query",
        "description": "For raw bodies: a unit, as in the JSON field.",
        "schema": {"type": "string", "enum": list(UNITS)},
    },
    "window": {
        "in": "query",
        "description": "For raw bodies: size and stride of the JSON field, with a comma between.",
        "schema": {"type": "string", "pattern": "^[1-9][0-9]*,[1-9][0-9]*$"},
    },
    **{
        name: {
            "in": "query",
            "description": "For raw bodies and batches: as the JSON field.",
            "schema": {"type": kind},
        }
        for name, kind in (
            ("top_k", "integer"),
            ("next_chars", "integer"),
            ("custom_id", "string"),
            ("deadline_s", "number"),
            ("priority", "string"),
        )
    },
}
BATCH_PARAMETERS = ("on_error", "outputs", "top_k", "deadline_s", "Idempotency-Key")
RESULT_PARAMETERS = ("after", "limit", "wait")
SUBMIT_PARAMETERS = ("wait", *QUERY_OPTIONS, "Prefer", "Idempotency-Key")
READ_PARAMETERS = ("wait", "Prefer")
