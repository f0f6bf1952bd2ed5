"""Reads the options in a query: defaults for texts in the body that do not set them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from werkzeug.datastructures import MultiDict

from app.requests.models import ScoreBody
from contract.grammar.invalid import (
    MAX_ERRORS_SHOWN,
    invalid,
    invalid_fields,
    plain_name,
    suggestion,
)
from contract.grammar.numbers import parse_number, parse_whole
from contract.grammar.text_request import TEXT_OPTIONS
from contract.grammar.validation import plain_errors

Query = MultiDict[str, str]


@dataclass(frozen=True, slots=True)
class QueryForm:
    """How an option of the JSON body stands in a query."""

    parse: Callable[[str], Any]
    """From a query's string to the option's type in JSON; raises ValueError."""
    hint: str = ""
    """What a client must know about the string."""
    schema: dict[str, Any] | None = None
    """JSON Schema of the parameter, where it differs from the option's."""
    has_commas: bool = False
    """Whether the parameter is a list whose values commas separate."""


def _window(value: str) -> dict[str, int]:
    size, stride = map(parse_whole, value.split(","))
    return {"size": size, "stride": stride}


_SIZE_AND_STRIDE = {
    "type": "array",
    "items": {"type": "integer", "minimum": 1},
    "minItems": 2,
    "maxItems": 2,
}
QUERY_FORMS: dict[str, QueryForm] = {
    "outputs": QueryForm(
        lambda names: names.split(","), "Commas separate the names.", has_commas=True
    ),
    "top_k": QueryForm(parse_whole),
    "deadline_s": QueryForm(parse_number),
    "priority": QueryForm(str),
    "model": QueryForm(str),
    "custom_id": QueryForm(str),
    "spans": QueryForm(str, "A unit; ranges need a JSON body."),
    "span_unit": QueryForm(str),
    "window": QueryForm(
        _window, "Size and stride in bytes, as `size,stride`.", _SIZE_AND_STRIDE, has_commas=True
    ),
    "next_chars": QueryForm(parse_whole),
}


def parse_options(query: Query, known: tuple[str, ...]) -> dict[str, Any]:
    """Read the options in a query, in the types that they have in JSON.

    Raises:
        RequestInvalid
    """
    refuse_unknown_parameters(query, known)
    options: dict[str, Any] = query.to_dict()
    for name, value in options.items():
        form = QUERY_FORMS.get(name)
        try:
            options[name] = value if form is None else form.parse(value)
        except ValueError:
            wanted = "size,stride in bytes, as 32767,16384" if name == "window" else "a number"
            raise invalid(f"must be {wanted}", parameter=name) from None
    return options


def options_of_texts(query: Query) -> dict[str, Any]:
    """Read the options in the query of `POST /score`; check each, whether or not it is used.

    Raises:
        RequestInvalid
    """
    # `wait` was taken out of the query before; it is named for those who misspell it.
    options = parse_options(query, (*QUERY_FORMS, "wait"))
    for name, value in options.items():
        try:
            ScoreBody.model_validate({"text": "-", name: value})
        except ValidationError as error:
            raise invalid(plain_errors(error)[0][0], parameter=name) from None
    return options


def with_defaults(fields: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `fields` of a request with the options of its query as defaults.

    An option of a text goes to each of `items`, where that can take it.
    """
    of_text = {name: value for name, value in options.items() if name in TEXT_OPTIONS}
    of_request = {name: value for name, value in options.items() if name not in TEXT_OPTIONS}
    items = fields.get("items")
    if items is None:
        return _filled(fields, {**of_request, **_taken(of_text, fields)})
    of_text.pop("custom_id", None)
    if isinstance(items, list):
        items = [
            _filled(item, _taken(of_text, item)) if isinstance(item, dict) else item
            for item in items
        ]
    return _filled({**fields, "items": items}, of_request)


def refuse_unknown_parameters(query: Query, known: tuple[str, ...]) -> None:
    """Refuse query parameters that are not `known`, or that come twice.

    Raises:
        RequestInvalid
    """
    unknown = [name for name in query if name not in known]
    if unknown:
        raise invalid_fields(
            [
                {"detail": _unknown_parameter(name, known), "parameter": plain_name(name)}
                for name in unknown[:MAX_ERRORS_SHOWN]
            ]
        )
    for name, values in query.lists():
        if len(values) > 1:
            raise invalid("is given more than once; give it once", parameter=name)


def _unknown_parameter(name: str, known: tuple[str, ...]) -> str:
    listed = f"; known here: {', '.join(known)}" if known else "; this route takes none"
    return f"is not a known query parameter{suggestion(name, known) or listed}"


def _filled(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    # Null is as good as absent.
    missing = {name: value for name, value in defaults.items() if fields.get(name) is None}
    return {**fields, **missing}


def _taken(options: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a text can take: a window excludes `next_chars`."""
    is_text = text.get("text") is not None or text.get("text_b64") is not None
    taken = dict(options)
    if not is_text or text.get("next_chars") is not None:
        taken.pop("window", None)
    if not is_text or "window" in taken or text.get("window") is not None:
        taken.pop("next_chars", None)
    return taken
