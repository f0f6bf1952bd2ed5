"""Checks the fields of a request by pydantic models, and puts pydantic's errors in plain words."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from contract.grammar.counts import counted
from contract.grammar.invalid import MAX_ERRORS_SHOWN, invalid_fields, plain_name, unknown_field

_Schema = TypeVar("_Schema", bound=BaseModel)


def conflict(message: str) -> PydanticCustomError:
    """Make the error of fields that do not go together, inside a pydantic model."""
    return PydanticCustomError("conflict", message)


def an_object(given: Any, example: str) -> Any:
    """Return `given` if it is a mapping or a model.

    Args:
        example: shows the fields in JSON; pydantic's own error would name none.

    Raises:
        PydanticCustomError: it is something else.
    """
    if isinstance(given, Mapping | BaseModel):
        return given
    raise PydanticCustomError("not_an_object", f"must be an object, such as {example}")


def validated(fields: Mapping[str, Any], schema: type[_Schema]) -> _Schema:
    """Check the fields of a request by a pydantic model.

    Raises:
        RequestInvalid: it names the first `MAX_ERRORS_SHOWN` errors.
    """
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        raise invalid_fields(
            [
                {"detail": detail, "pointer": "".join(f"/{step}" for step in place)}
                for detail, place in plain_errors(error)
            ]
        ) from None


def plain_errors(error: ValidationError) -> list[tuple[str, tuple[int | str, ...]]]:
    """List the errors that pydantic found: in plain words, without values, each with its place."""
    found = error.errors(include_url=False, include_input=False)
    return [(_plain_detail(each), _place(each)) for each in found[:MAX_ERRORS_SHOWN]]


def _place(error: ErrorDetails) -> tuple[int | str, ...]:
    """Where the error is; a name that we did not define is left out if it could be a text."""
    place = error["loc"]
    if error["type"] != "extra_forbidden":
        return place
    name = plain_name(str(place[-1]))
    return (*place[:-1], name) if name else place[:-1]


_DETAILS = {
    "string_type": "must be a string",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "int_parsing": "must be an integer",
    "int_parsing_size": "must be an integer of at most 64 bits",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "none_required": "must be null or absent",
    "literal_error": "must be one of {expected}",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "missing": "is missing",
}
# The words, the name of pydantic's limit, and what is counted.
_SIZES = {
    "string_too_short": ("at least", "min_length", "character"),
    "string_too_long": ("at most", "max_length", "character"),
    "too_short": ("at least", "min_length", "element"),
    "too_long": ("at most", "max_length", "element"),
}


def _plain_detail(error: ErrorDetails) -> str:
    if error["type"] in _SIZES:
        words, limit, noun = _SIZES[error["type"]]
        return f"must have {words} {counted(error['ctx'][limit], noun)}"
    if error["type"] == "extra_forbidden":
        return unknown_field(str(error["loc"][-1]), ())
    template = _DETAILS.get(error["type"])
    # What our own models say is plain already.
    return error["msg"] if template is None else template.format(**error.get("ctx", {}))
