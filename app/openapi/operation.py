"""Declares what a route takes and answers, for `/openapi.json`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Response
from pydantic import BaseModel

from app.openapi.parameters import json_body
from contract.errors import ServiceError

_View = TypeVar("_View", bound=Callable[..., Response])


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route declares besides its docstring."""

    answers: dict[int, type[BaseModel] | None]
    errors: tuple[type[ServiceError], ...]
    parameters: tuple[str, ...]
    body: dict[str, Any] | None
    streams: dict[str, Any] | None
    links: dict[str, Any]


def operation(
    answers: dict[int, type[BaseModel] | None],
    *errors: type[ServiceError],
    parameters: tuple[str, ...] = (),
    body: dict[str, Any] | None = None,
    takes: type[BaseModel] | None = None,
    streams: dict[str, Any] | None = None,
    links: dict[str, Any] | None = None,
) -> Callable[[_View], _View]:
    """Declare what a route takes and answers.

    Args:
        answers: models by status; None for an empty answer.
        errors: the errors that it raises; `app.responses.problems` has their statuses.
        parameters: names in `PARAMETERS`.
        body: the description of its request body.
        takes: the model of its request body, if that is always JSON.
        streams: the description of its answer 200, if that is not a JSON object.
        links: operations that take the ID in its answers.
    """

    def declare(view: _View) -> _View:
        taken = body if takes is None else json_body(takes)
        declared = Operation(answers, errors, parameters, taken, streams, links or {})
        view.operation = declared  # type: ignore[attr-defined]
        return view

    return declare
