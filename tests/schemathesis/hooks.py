"""What schemathesis must be told of NDJSON, which OpenAPI describes by the schema of one line."""

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson", "application/jsonl")
def to_lines(ctx: Any, value: Any) -> bytes:
    """The generated object as a body of one line."""
    return value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n"
