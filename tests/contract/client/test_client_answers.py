"""The client's types of answers are those of the service: names, types, nullability, literals.

The models are found from the routes that the client calls. So a new route, model or field of the
service fails here until the client has it, or until a table below says why it has not.
"""

import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from itertools import product
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel

from app.factory import create_app
from app.responses.batch_models import BatchResult
from contract.batches import Batch
from contract.messages import FINAL_STATES
from contract.settings import load_settings
from evascore import json_objects, results
from evascore.operations.api import Operations
from evascore.operations.calls import batch_request
from evascore.operations.retrying import Call
from evascore.operations.steps import Send
from evascore.texts import Text

CALL = Call.begin(timeout_s=1, patience_s=1)
# One call of each operation of the client; its first request tells the route.
OPERATIONS: dict[str, Callable[[Operations], Iterator[Any]]] = {
    "submit": lambda o: o.submit({"text": "a"}, CALL, key=None),
    "complete": lambda o: o.complete({"text": "a"}, CALL, key=None),
    "outcomes": lambda o: o.outcomes([Text("a")], CALL),
    "wait": lambda o: o.wait("id", CALL),
    "read": lambda o: o.read("id", CALL),
    "cancel": lambda o: o.cancel("id", CALL),
    "erase": lambda o: o.erase("id", CALL),
    "submit_batch": lambda o: o.submit_batch(batch_request(["a"], {}), CALL, key=None),
    "wait_batch": lambda o: o.wait_batch("id", CALL),
    "read_batch": lambda o: o.read_batch("id", CALL),
    "cancel_batch": lambda o: o.cancel_batch("id", CALL),
    "erase_batch": lambda o: o.erase_batch("id", CALL),
    "page": lambda o: o.page("id", 0, 1, CALL),
    "info": lambda o: o.info(CALL),
}
UNTYPED_OPERATIONS = {"get": "returns the JSON of any path as it came"}
# Models that are sent line by line, for which OpenAPI has no schema, by operation.
STREAMED = {"page": BatchResult}

COUNTERPARTS: dict[str, type] = {
    "JobView": results.Job,
    "ScoresResult": results.Score,
    "Scores": results.Score,
    "ByteScores": results.ByteScores,
    "Span": results.Span,
    "Window": results.Window,
    "NextChars": results.NextChars,
    "Model": json_objects.Model,
    "ListedModel": json_objects.ListedModel,
    "Timings": json_objects.Timings,
    "Batch": json_objects.MicroBatch,
    "Usage": json_objects.Usage,
    "Links": json_objects.JobLinks,
    "BatchView": results.Batch,
    "RequestCounts": results.Counts,
    "BatchLinks": json_objects.BatchLinks,
    "BatchResult": results.Line,
    "Info": results.Info,
    "ServiceName": json_objects.ServiceName,
    "Limits": json_objects.Limits,
    "Problem": json_objects.Problem,
    "FieldError": json_objects.FieldError,
}
# Models that methods of the client take apart, with the fields that those methods know.
CIRCUMSTANCES = {"model", "timings_ms", "batch", "usage"}
TAKEN_APART = {
    # By Job.continuations and Line.continuations, which return a list of Score.
    "Continuations": {"continuations"},
    "ContinuationsResult": {"continuations", "custom_id", *CIRCUMSTANCES},
    # By Job.outcomes, which returns a list of Score and ServiceError.
    "ItemsResult": {"items", *CIRCUMSTANCES},
    "Item": {"custom_id", "result", "error"},
}
# Fields without a counterpart of the same name, and why.
WITHOUT_COUNTERPART = {
    ("JobView", "result"): "Job.score, Job.outcomes and Job.continuations parse it",
    ("JobView", "error"): "Job.error makes an exception of it",
    ("BatchResult", "result"): "Line.outcome and Line.continuations parse it",
    ("BatchResult", "error"): "Line.outcome makes an exception of it",
    ("BatchView", "object"): "always `batch`, for readers of OpenAI's API",
}


@dataclass(frozen=True)
class Field:
    """A field of an answer, of either side."""

    type: Any
    """Without None."""
    is_nullable: bool
    may_be_missing: bool


# --- the service's side ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models() -> dict[str, type[BaseModel]]:
    """The models that can be reached from the routes that the client calls, by name."""
    app = create_app(load_settings({"EVASCORE_REDIS_URL": "redis://127.0.0.1:1/0"}))
    routes = app.url_map.bind("localhost")
    found: dict[str, type[BaseModel]] = {}
    for name, operation in OPERATIONS.items():
        sent = next(operation(Operations()))
        assert isinstance(sent, Send)
        endpoint, _ = routes.match(sent.path, sent.method)
        declared = app.view_functions[endpoint].operation
        streamed = [STREAMED[name]] if declared.streams else []
        for model in (*declared.answers.values(), *streamed):
            add_reachable(model, found)
    app.extensions["evascore"].changes.close()
    return found


def add_reachable(node: Any, found: dict[str, type[BaseModel]]) -> None:
    """Add the models in a type, and those in their fields."""
    for part in get_args(node):
        add_reachable(part, found)
    if isinstance(node, type) and issubclass(node, BaseModel) and node.__name__ not in found:
        found[node.__name__] = node
        for field in node.model_fields.values():
            add_reachable(field.annotation, found)


def fields_of_model(model: type[BaseModel]) -> dict[str, Field]:
    return {
        name: Field(*without_none(field.annotation), may_be_missing=not field.is_required())
        for name, field in model.model_fields.items()
    }


# --- the client's side ----------------------------------------------------------------------------

# What the client adds to an answer: all of its JSON, and the text that it sent.
OWN_FIELDS = {"raw", "scored_text"}


def fields_of_client(kind: type) -> dict[str, Field]:
    """The fields of a dataclass or of a TypedDict."""
    hints = get_type_hints(kind)
    if is_dataclass(kind):
        missing = {
            field.name: not (field.default is field.default_factory is MISSING)
            for field in fields(kind)
            if field.name not in OWN_FIELDS
        }
    else:
        missing = {name: name not in kind.__required_keys__ for name in hints}
    return {name: Field(*without_none(hints[name]), missing[name]) for name in missing}


def without_none(annotation: Any) -> tuple[Any, bool]:
    """A type without None, and whether it had it."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, False
    rest = [part for part in get_args(annotation) if part is not type(None)]
    is_nullable = len(rest) < len(get_args(annotation))
    return (rest[0] if len(rest) == 1 else Union[tuple(rest)]), is_nullable  # noqa: UP007


# --- comparing ------------------------------------------------------------------------------------


def differences(model: type[BaseModel], kind: type) -> Iterator[str]:
    """What the client has otherwise than the service, as sentences."""
    ours = fields_of_client(kind)
    for name, theirs in fields_of_model(model).items():
        place = f"{model.__name__}.{name}"
        if (model.__name__, name) in WITHOUT_COUNTERPART:
            continue
        if name not in ours:
            yield f"{place}: the client's {kind.__name__} has no such field"
            continue
        if not is_same(theirs.type, ours[name].type):
            yield f"{place} is {theirs.type}, in the client {ours[name].type}"
        is_absent_in_client = ours[name].is_nullable or not is_dataclass(kind)
        if theirs.may_be_missing and not (ours[name].may_be_missing and is_absent_in_client):
            yield f"{place} may be missing, and must not be in the client"
        if theirs.is_nullable and not theirs.may_be_missing and not ours[name].is_nullable:
            yield f"{place} may be null, and must not be in the client"
        if ours[name].is_nullable and not theirs.is_nullable:
            yield f"{place} is never null, and may be in the client"


def is_same(theirs: Any, ours: Any) -> bool:
    """Whether a type of the service is that of the client."""
    if isinstance(theirs, type) and issubclass(theirs, BaseModel):
        return COUNTERPARTS.get(theirs.__name__) is ours
    if theirs == dict[str, Any]:
        return ours == Mapping[str, Any]
    if get_origin(theirs) is Literal:
        return get_origin(ours) is Literal and set(get_args(theirs)) == set(get_args(ours))
    if get_origin(theirs) is None:
        return theirs is ours
    parts, our_parts = get_args(theirs), get_args(ours)
    return (
        get_origin(theirs) is get_origin(ours)
        and len(parts) == len(our_parts)
        and all(map(is_same, parts, our_parts))
    )


@pytest.mark.parametrize("name", COUNTERPARTS)
def test_client_has_the_fields_of_the_service(models, name):
    found = list(differences(models[name], COUNTERPARTS[name]))
    assert not found, "\n".join(found)


KINDS = list(dict.fromkeys(COUNTERPARTS.values()))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_client_has_no_field_that_the_service_lacks(models, kind):
    served = {
        field
        for name, counterpart in COUNTERPARTS.items()
        if counterpart is kind
        for field in models[name].model_fields
    }
    assert fields_of_client(kind).keys() <= served


def test_every_model_that_the_client_reads_has_a_counterpart(models):
    assert models.keys() == {*COUNTERPARTS, *TAKEN_APART}


@pytest.mark.parametrize("name", TAKEN_APART)
def test_models_that_are_taken_apart_have_no_unknown_field(models, name):
    assert set(models[name].model_fields) == TAKEN_APART[name]


def test_every_field_without_a_counterpart_is_served(models):
    for name, field in WITHOUT_COUNTERPART:
        assert field in models[name].model_fields


def test_every_operation_of_the_client_is_compared():
    methods = dict(inspect.getmembers(Operations, inspect.isfunction))
    public = {name for name in methods if not name.startswith("_")}
    assert public == {*OPERATIONS, *UNTYPED_OPERATIONS}


def test_final_states_and_statuses_are_those_of_the_service():
    assert results.FINAL_STATES == FINAL_STATES
    times = (None, 1.0)
    batches = [
        Batch("id", 1, 1, 1, 1.0, 2.0, cancelling_at=cancelled, ended_at=ended, has_expired_lines=x)
        for cancelled, ended, x in product(times, times, (False, True))
    ]
    assert {batch.status for batch in batches if batch.is_final} == results.FINAL_STATUSES


# --- the comparison itself ------------------------------------------------------------------------


class Served(BaseModel):
    """An answer that is not the client's."""

    same: int
    new: int
    wider: float | None
    other: Literal["a", "b"]
    optional: int | None = None


@dataclass(frozen=True)
class Known:
    """What a client that fell behind knows of it."""

    same: int
    wider: float
    other: Literal["a", "c"]
    optional: int


def test_each_difference_is_named():
    reply = list(differences(Served, Known))
    assert [difference.split()[0].rstrip(":") for difference in reply] == [
        "Served.new",
        "Served.wider",
        "Served.other",
        "Served.optional",
    ]
