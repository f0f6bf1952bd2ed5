"""Writes the limits from the settings, and the served models, into the OpenAPI document."""

from collections.abc import Sequence
from typing import Any

from contract.grammar.model_names import EXACT_MODEL_PATTERN, MAX_REFERENCE_CHARS
from contract.settings import Settings

_BODIES_WITH_MODEL = ("ScoreBody", "CompletionBody", "TokenizeBody", "DetokenizeBody")
_CONTINUATIONS = ("continuations", "continuations_b64")
# Path of a limit in the schemas, with its keyword last, and its setting.
_OF_SCHEMAS: dict[tuple[str, ...], str] = {
    ("SlidingWindow", "properties", "size", "maximum"): "max_text_bytes",
    ("ScoreBody", "properties", "items", "maxItems"): "max_items",
    ("ScoreBody", "properties", "deadline_s", "maximum"): "max_deadline_s",
    **{
        (model, "properties", name, "maxItems"): "max_continuations"
        for model in ("ScoreBody", "TextRequest")
        for name in _CONTINUATIONS
    },
}
# By operation and parameter: path of the limit in its schema, and its setting.
_OF_PARAMETERS: dict[tuple[str, str], tuple[tuple[str, ...], str]] = {
    ("submit", "deadline_s"): (("maximum",), "max_deadline_s"),
    ("submit", "window"): (("items", "maximum"), "max_text_bytes"),
    ("create_batch", "deadline_s"): (("maximum",), "max_upload_deadline_s"),
}


def add_limits(document: dict[str, Any], settings: Settings, models: Sequence[str]) -> None:
    """Write the limits into an OpenAPI document.

    Args:
        models: what requests can ask for; empty if it is not known.
    """
    schemas = document["components"]["schemas"]
    for path, setting in _OF_SCHEMAS.items():
        _put(schemas, path, getattr(settings, setting))
    # The last form is a list of prompts.
    prompts = schemas["CompletionBody"]["properties"]["prompt"]["anyOf"][-1]
    prompts["maxItems"] = settings.max_items
    if models:
        for body in _BODIES_WITH_MODEL:
            forms = [*_forms_of_model(models), {"type": "null"}]
            schemas[body]["properties"]["model"]["anyOf"] = forms
    for operation in (each for item in document["paths"].values() for each in item.values()):
        for parameter in operation["parameters"]:
            if parameter["name"] == "model" and models:
                parameter["schema"]["anyOf"] = _forms_of_model(models)
            key = operation["operationId"], parameter["name"]
            if key in _OF_PARAMETERS:
                path, setting = _OF_PARAMETERS[key]
                _put(parameter["schema"], path, getattr(settings, setting))


def _forms_of_model(models: Sequence[str]) -> list[dict[str, Any]]:
    """The two forms in which a request names its model: a listed name, or one exact model."""
    exact = {"type": "string", "pattern": EXACT_MODEL_PATTERN, "maxLength": MAX_REFERENCE_CHARS}
    return [{"type": "string", "enum": list(models)}, exact]


def _put(schema: dict[str, Any], path: tuple[str, ...], limit: float) -> None:
    for step in path[:-1]:
        schema = schema[step]
    schema[path[-1]] = limit
