"""What the query of a POST asks for: fields of JSON, for what the body does not say."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from werkzeug.datastructures import MultiDict

from app.requests.invalid import invalid, plain_name
from app.requests.models import ScoreBody
from app.requests.numbers import parse_number, parse_whole

Query = MultiDict[str, str]

_OF_TEXT = ("custom_id", "spans", "window", "next_chars")
QUERY_OPTIONS = ("outputs", "top_k", "deadline_s", "priority", *_OF_TEXT)
_PARSERS = {"top_k": parse_whole, "next_chars": parse_whole, "deadline_s": parse_number}


def parse_options(query: Query, known: tuple[str, ...]) -> dict[str, Any]:
    """The options in a query, in the types that they have in JSON.

    Raises:
        RequestInvalid
    """
    refuse_unknown_parameters(query, known)
    options: dict[str, Any] = query.to_dict()
    if "outputs" in options:
        options["outputs"] = options["outputs"].split(",")
    if "window" in options:
        options["window"] = _window(options["window"])
    for name in options.keys() & _PARSERS.keys():
        try:
            options[name] = _PARSERS[name](options[name])
        except ValueError:
            raise invalid("must be a number", parameter=name) from None
    return options


def options_of_texts(query: Query) -> dict[str, Any]:
    """The options of a query of `POST /score`, each what its field may be, used or not.

    Raises:
        RequestInvalid
    """
    options = parse_options(query, QUERY_OPTIONS)
    for name, value in options.items():
        try:
            ScoreBody.model_validate({"text": "-", name: value})
        except ValidationError as error:
            raise invalid(error.errors(include_input=False)[0]["msg"], parameter=name) from None
    return options


def with_defaults(fields: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The `fields` of a request, and the options of its query for what they do not say.

    Those of a text are for each of `items`, and where the text can take them.
    """
    of_text = {name: value for name, value in options.items() if name in _OF_TEXT}
    of_request = {name: value for name, value in options.items() if name not in _OF_TEXT}
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
    for name, values in query.lists():
        if name not in known:
            listed = f"; known here: {', '.join(known)}" if known else ""
            raise invalid(f"is not a known query parameter{listed}", parameter=plain_name(name))
        if len(values) > 1:
            raise invalid("is given more than once", parameter=name)


def _filled(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    # Null is as good as absent.
    missing = {name: value for name, value in defaults.items() if fields.get(name) is None}
    return {**fields, **missing}


def _taken(options: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a text can take: a window leaves no room for `next_chars`."""
    is_text = text.get("text") is not None or text.get("text_b64") is not None
    taken = dict(options)
    if not is_text or text.get("next_chars") is not None:
        taken.pop("window", None)
    if not is_text or "window" in taken or text.get("window") is not None:
        taken.pop("next_chars", None)
    return taken


def _window(value: str) -> dict[str, int]:
    try:
        size, stride = map(parse_whole, value.split(","))
    except ValueError:
        raise invalid("must be size,stride in bytes", parameter="window") from None
    return {"size": size, "stride": stride}
