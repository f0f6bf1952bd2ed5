"""Makes the errors of wrong requests; no error quotes a text of the sender."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from contract.errors import RequestInvalid

MAX_ERRORS_TOLD = 10
# A name that cannot be anybody's text, so that an error may repeat it.
_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_Schema = TypeVar("_Schema", bound=BaseModel)


def invalid(detail: str, **where: str) -> RequestInvalid:
    """Make one error: of a field (`pointer`), a query `parameter` or a `header`."""
    return invalid_fields([{"detail": detail, **where}])


def invalid_fields(errors: Sequence[Mapping[str, str]]) -> RequestInvalid:
    """Make the error of a request from `errors`, each with its `detail` and its place."""
    return RequestInvalid(
        "The request is not valid; `errors` lists what is wrong and where.", errors=errors
    )


def conflict(message: str) -> PydanticCustomError:
    """Make the error of fields that do not go together, inside a pydantic model."""
    return PydanticCustomError("conflict", message)


def validated(fields: Mapping[str, Any], schema: type[_Schema]) -> _Schema:
    """Check the fields of a request by a pydantic model.

    Raises:
        RequestInvalid: it tells the first `MAX_ERRORS_TOLD` errors.
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
    return [(_plain_detail(each), _place(each)) for each in found[:MAX_ERRORS_TOLD]]


def _place(error: ErrorDetails) -> tuple[int | str, ...]:
    """Where the error is; a name that we did not define is left out if it could be a text."""
    place = error["loc"]
    if error["type"] != "extra_forbidden":
        return place
    name = plain_name(str(place[-1]))
    return (*place[:-1], name) if name else place[:-1]


def plain_name(name: str) -> str:
    """Return `name` if it is a plain identifier, else '': a long name could be a text."""
    return name if _PLAIN_NAME.fullmatch(name) else ""


# Names that other services give to what a field holds here; the first that exists is suggested.
_NAMES_ELSEWHERE = {
    "content": ("text",),
    "document": ("text",),
    "id": ("custom_id",),
    "input": ("text",),
    "inputs": ("items", "text"),
    "prompt": ("text", "context"),
    "texts": ("items", "text"),
}


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the known name that is nearest to `name`, or ''."""
    names = list(known)
    elsewhere = [each for each in _NAMES_ELSEWHERE.get(name, ()) if each in names]
    close = elsewhere or difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


_DETAILS = {
    "string_type": "must be a string",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
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
    "too_short": "must have at least {min_length} elements",
    "too_long": "must have at most {max_length} elements",
    "extra_forbidden": "is not a known field",
    "missing": "is missing",
}


def _plain_detail(error: ErrorDetails) -> str:
    template = _DETAILS.get(error["type"])
    # What our own models say is plain already.
    return error["msg"] if template is None else template.format(**error.get("ctx", {}))
