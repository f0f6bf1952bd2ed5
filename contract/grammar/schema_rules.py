"""States in JSON Schema which fields of a request go together; the models check the same.

A form lists the fields that must be given and those that must be absent. Null counts as absent, so
an absent field has the type null.
"""

from collections.abc import Iterator
from typing import Any

from contract.grammar.outputs import RANGE_UNITS

Schema = dict[str, Any]

NULL: Schema = {"type": "null"}
TEXT: Schema = {"type": "string", "minLength": 1}
TEXTS: Schema = {"type": "array", "items": TEXT}
# Standard alphabet, with padding.
BASE64_PATTERN = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

_TEXTS = ("text", "text_b64")
_CONTINUATIONS = {
    "continuation": TEXT,
    "continuation_b64": TEXT,
    "continuations": TEXTS,
    "continuations_b64": TEXTS,
}
CONTEXT_FIELDS = ("context", "context_b64")
# Each field holds what is scored, as Unicode or, with `_b64`, as any bytes in base64.
SCORED_FIELDS = (*_TEXTS, *_CONTINUATIONS)


def form(given: dict[str, Schema], absent: tuple[str, ...] = ()) -> Schema:
    """Describe an object with all fields of `given`, each of its schema, and none of `absent`."""
    return {"properties": {**given, **dict.fromkeys(absent, NULL)}, "required": list(given)}


def of_one_text() -> Schema:
    """Describe a text, perhaps with its next characters, or continuations of one context."""
    return {"allOf": [{"anyOf": list(_of_one_text())}, _one_context(), _one_unit()]}


def of_texts(text_options: tuple[str, ...]) -> Schema:
    """Describe one text, or `items`, each with its own `text_options`."""
    of_items = form({"items": {"type": "array"}}, (*SCORED_FIELDS, *CONTEXT_FIELDS, *text_options))
    forms = [*_of_one_text(("items",)), of_items]
    return {"allOf": [{"anyOf": forms}, _one_context(), _one_unit()]}


def _of_one_text(absent: tuple[str, ...] = ()) -> Iterator[Schema]:
    for name in _TEXTS:
        others = (*(each for each in SCORED_FIELDS if each != name), *CONTEXT_FIELDS, *absent)
        yield form({name: TEXT}, (*others, "next_chars"))
        # Characters may follow the empty text too.
        followed = {name: {"type": "string"}, "next_chars": {"type": "integer"}}
        yield form(followed, (*others, "window"))
    for name, schema in _CONTINUATIONS.items():
        others = (
            *(each for each in SCORED_FIELDS if each != name),
            "next_chars",
            "window",
            *absent,
        )
        yield form({name: schema}, others)


def _one_context() -> Schema:
    return {"anyOf": [form({}, (name,)) for name in CONTEXT_FIELDS]}


def _one_unit() -> Schema:
    """Let `span_unit` only repeat the unit that `spans` may name."""
    without = {"properties": {"spans": {"type": ["array", "string", "null"]}}}
    repeated = (
        form({"spans": {"properties": {"unit": {"const": unit}}}, "span_unit": {"const": unit}})
        for unit in RANGE_UNITS
    )
    return {"anyOf": [form({}, ("span_unit",)), without, *repeated]}
