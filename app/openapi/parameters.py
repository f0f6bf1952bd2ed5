"""Defines the parameters, bodies and streams that routes refer to in their descriptions."""

from typing import Any

from pydantic import BaseModel

from app.requests.models import BatchOptions, ScoreBody
from app.requests.query import QUERY_FORMS, QueryForm
from app.responses.batch_models import BatchResult
from contract.grammar.text_request import TextRequest

SCHEMA_PATH = "#/components/schemas/{model}"


def reference(model: type[BaseModel]) -> dict[str, str]:
    """Point to the schema of a model that `document.py` lists."""
    return {"$ref": SCHEMA_PATH.format(model=model.__name__)}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a request body that holds the JSON of `model`."""
    return {"required": True, "content": {"application/json": {"schema": reference(model)}}}


def events_of(view: type[BaseModel]) -> dict[str, Any]:
    """Describe an answer of server-sent events, each with a `view` as its data."""
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
    """List the operations that take the ID in an answer."""
    parameters = {parameter: "$response.body#/id"}
    return {name: {"operationId": name, "parameters": parameters} for name in operations}


# A description, not a parameter: generated requests with random keys would be refused.
_IDEMPOTENCY = (
    "With a header `Idempotency-Key` (1 to 255 visible ASCII characters) a repeated request is "
    "accepted only once within 24 hours."
)
TEXTS = {
    "required": True,
    "description": f"The text or texts to score. {_IDEMPOTENCY}",
    "content": {
        "application/json": {"schema": reference(ScoreBody)},
        "text/plain": {"schema": {"type": "string", "minLength": 1}},
        "application/octet-stream": {
            "schema": {"type": "string", "format": "binary", "minLength": 1}
        },
    },
}


def _lines_of(model: type[BaseModel]) -> dict[str, Any]:
    """Describe NDJSON; OpenAPI 3.1 cannot give the schema of each line."""
    return {"type": "string", "description": f"One {model.__name__} in JSON per line."}


LINES = {
    "required": True,
    "description": (
        "One JSON object per line, plain or with Content-Encoding gzip or zstd. A short list may "
        f"come as a JSON array. {_IDEMPOTENCY}"
    ),
    "content": {
        "application/x-ndjson": {"schema": _lines_of(TextRequest)},
        "application/json": {
            "schema": {"type": "array", "items": reference(TextRequest), "minItems": 1}
        },
    },
}
FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "purpose": {"type": "string", "enum": ["batch"]},
                    "file": {"type": "string", "format": "binary", "minLength": 1},
                },
                "required": ["purpose", "file"],
            }
        }
    },
}
JSON_LINES = {
    "description": "One JSON object per line.",
    "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
}
RESULT_LINES = {
    "description": "One JSON object per line, in the order of the upload.",
    "headers": {
        "Next-After": {
            "description": "Value of `after` for the next page.",
            "schema": {"type": "integer"},
        },
        "Link": {
            "description": "Link to the next page (rel=next); absent on the last page.",
            "schema": {"type": "string"},
        },
    },
    "content": {"application/x-ndjson": {"schema": _lines_of(BatchResult)}},
}
_DEFAULT = "Default for texts in the body that do not set this field."


def _option(name: str, form: QueryForm) -> dict[str, Any]:
    """Describe an option of the JSON body as a query parameter."""
    declared = ScoreBody.model_json_schema()["properties"][name]
    # The last form is null, which a query cannot say; of several others the first is a string.
    schema = form.schema or (declared["anyOf"][0] if "anyOf" in declared else declared)
    return {
        "in": "query",
        "description": f"{_DEFAULT} {form.hint}".strip(),
        **({"style": "form", "explode": False} if form.has_commas else {}),
        "schema": {key: value for key, value in schema.items() if key not in ("default", "title")},
    }


PARAMETERS: dict[str, dict[str, Any]] = {
    "wait": {
        "in": "query",
        "description": "Seconds to wait for the job to end, at most `max_wait_s`.",
        "schema": {"type": "number", "minimum": 0},
    },
    "Prefer": {
        "in": "header",
        "description": "`wait=n` (RFC 7240) waits like the query parameter `wait`.",
        "schema": {"type": "string"},
    },
    "Last-Event-ID": {
        "in": "header",
        "description": "ID of the last event that the client received.",
        "schema": {"type": "string"},
    },
    "on_error": {
        "in": "query",
        "description": BatchOptions.model_fields["on_error"].description,
        "schema": {"type": "string", "enum": ["fail", "skip"], "default": "fail"},
    },
    **{
        name: {
            "in": "query",
            "description": BatchOptions.model_fields[name].description,
            "schema": {"type": "string", "minLength": 1, "maxLength": 128},
        }
        for name in ("text_field", "id_field")
    },
    "after": {
        "in": "query",
        "description": "Number of results to skip: those that the client has already.",
        "schema": {"type": "integer", "minimum": 0, "default": 0},
    },
    "limit": {
        "in": "query",
        "description": "Largest number of results in the answer, at most 10,000.",
        "schema": {"type": "integer", "minimum": 1, "default": 1000},
    },
    **{name: _option(name, form) for name, form in QUERY_FORMS.items()},
}
BATCH_PARAMETERS = ("on_error", "text_field", "id_field", "outputs", "top_k", "deadline_s", "model")
RESULT_PARAMETERS = ("after", "limit", "wait")
SUBMIT_PARAMETERS = ("wait", *QUERY_FORMS, "Prefer")
READ_PARAMETERS = ("wait", "Prefer")
