"""Checks the fields of one text to score; the API's description is made from these models."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from contract.grammar import schema_rules
from contract.grammar.numbers import MAX_EXACT, AsWhole, wholes
from contract.grammar.outputs import (
    DEFAULT_TOP_K,
    MAX_CUSTOM_ID_CHARS,
    MAX_NEXT_CHARS,
    MAX_TOP_K,
    OUTPUT_NAMES,
    OUTPUTS,
    RANGE_UNITS,
    UNITS,
)
from contract.grammar.schema_rules import CONTEXT_FIELDS, SCORED_FIELDS
from contract.grammar.validation import an_object, conflict

if TYPE_CHECKING:
    OutputName = str
    RangeUnit = str
else:
    OutputName = Literal[OUTPUT_NAMES]
    RangeUnit = Literal[RANGE_UNITS]

# fail_fast: a list of wrong values gives one error, not a million.
Texts = Annotated[list[str], Field(min_length=1, fail_fast=True)]
# checked_text.py decodes and counts the bytes; the pattern is for readers of the description.
_BASE64 = {"type": "string", "contentEncoding": "base64", "pattern": schema_rules.BASE64_PATTERN}
Base64 = Annotated[str, WithJsonSchema(_BASE64)]
Base64s = Annotated[list[Base64], Field(min_length=1, fail_fast=True)]


def _are_spans(spans: Any) -> Any:
    """Check for a unit or ranges; pydantic itself would give an error for each of the two forms."""
    if spans is None or (isinstance(spans, str) and spans in UNITS):
        return spans
    ranges = list(map(wholes, spans)) if isinstance(spans, list) else []
    if not ranges or not all(map(_is_range, ranges)):
        raise PydanticCustomError(
            "spans",
            f"must be one of {', '.join(UNITS)}, or a list of [start, end], both from 0 on; or "
            "such a list as ranges, with their unit",
        )
    return ranges


def _is_range(span: Any) -> bool:
    is_pair = isinstance(span, list) and len(span) == 2 and all(type(each) is int for each in span)
    return is_pair and min(span) >= 0 and max(span) <= MAX_EXACT


def _spread(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write `spans` that are {"unit": ..., "ranges": ...} as ranges and their `span_unit`."""
    given = fields.get("spans")
    if not (isinstance(given, dict) and given.keys() == {"unit", "ranges"}):
        return fields
    if fields.get("span_unit") not in (None, given["unit"]):
        raise conflict("give the unit of the ranges once, in spans or as span_unit")
    return {**fields, "spans": given["ranges"], "span_unit": given["unit"]}


_OFFSET = {"type": "integer", "minimum": 0, "maximum": MAX_EXACT}
_RANGE = {"type": "array", "items": _OFFSET, "minItems": 2, "maxItems": 2}
Spans = Annotated[
    Any,
    AfterValidator(_are_spans),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": list(UNITS)},
                {"type": "array", "items": _RANGE, "minItems": 1},
                {
                    "type": "object",
                    "properties": {
                        "unit": {"enum": list(RANGE_UNITS)},
                        "ranges": {"type": "array", "items": _RANGE, "minItems": 1},
                    },
                    "required": ["unit", "ranges"],
                    "additionalProperties": False,
                },
                {"type": "null"},
            ]
        }
    ),
]


OutputNames = Annotated[list[OutputName], Field(min_length=1, max_length=len(OUTPUTS))]
TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K), AsWhole]
NumNextChars = Annotated[int, Field(ge=1, le=MAX_NEXT_CHARS), AsWhole]
NumBytes = Annotated[int, Field(ge=1, le=MAX_EXACT), AsWhole]


class SlidingWindow(BaseModel):
    """Overlapping windows over a text longer than the model's context; see docs/scoring.md."""

    model_config = ConfigDict(extra="forbid", strict=True)

    size: NumBytes = Field(description="Bytes of one window, at most `max_text_bytes`.")
    stride: NumBytes = Field(
        description=(
            "Bytes from the start of one window to the start of the next. Values over `size` count "
            "as `size`. It must be a multiple of `model.window_size` in /info, else the job fails."
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _is_an_object(cls, given: Any) -> Any:
        return an_object(given, '{"size": 4096, "stride": 2048}')


class TextRequest(BaseModel):
    """One text to score, or continuations of one context."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra=schema_rules.of_one_text()
    )

    custom_id: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_CUSTOM_ID_CHARS,
        description="Your name for the text. It comes back with the result.",
    )
    text: str | None = Field(None, description="The text to score, as UTF-8.")
    text_b64: Base64 | None = Field(
        None, description="Bytes to score instead of `text`, in standard base64."
    )
    context: str | None = Field(
        None,
        description="Text before the continuations. They are scored given it; it is not scored.",
    )
    context_b64: Base64 | None = Field(None, description="`context` as base64.")
    continuation: str | None = Field(None, description="The text to score given `context`.")
    continuation_b64: Base64 | None = Field(None, description="`continuation` as base64.")
    continuations: Texts | None = Field(
        None, description="Several texts, each scored given the same `context`."
    )
    continuations_b64: Base64s | None = Field(None, description="`continuations` as base64.")
    outputs: OutputNames | None = Field(
        None,
        description="What the result holds: "
        + "; ".join(f"`{output.name}`: {output.meaning}" for output in OUTPUTS)
        + ".",
    )
    top_k: TopK | None = Field(
        None,
        description=(
            "Number of likeliest bytes at each position. Setting it asks for the output `top_k`; "
            f"the default is {DEFAULT_TOP_K}."
        ),
    )
    spans: Spans = Field(
        None,
        description=(
            "Also score each word, line or character of the text, or ranges `[start, end)` of its "
            "bytes. Ranges beyond the text are cut to it, as Python's slices are."
        ),
    )
    span_unit: RangeUnit | None = Field(
        None,
        description=(
            "What the ranges of `spans` count: `bytes` (default), or `characters` as Python's "
            "strings do. Words, lines and characters are not affected. `spans` may name it itself: "
            '`{"unit": "characters", "ranges": [[0, 3]]}`.'
        ),
    )
    next_chars: NumNextChars | None = Field(
        None,
        description="Number of likeliest next characters after the text, which may be empty.",
    )
    window: SlidingWindow | None = Field(
        None, description="Score a text of up to `max_windowed_bytes` in sliding windows."
    )

    @model_validator(mode="before")
    @classmethod
    def _names_the_unit_once(cls, given: Any) -> Any:
        fields = an_object(given, '{"text": "any text"}')
        return _spread(fields) if isinstance(fields, Mapping) else fields

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> "TextRequest":
        given = [name for name in SCORED_FIELDS if getattr(self, name) is not None]
        self._check_scored(given)
        contexts = [n for n in CONTEXT_FIELDS if getattr(self, n) is not None]
        if len(contexts) > 1:
            raise conflict("give either context or context_b64")
        if contexts and not (given and given[0].startswith("continuation")):
            raise conflict("context needs a continuation or continuations to score")
        self._check_options(is_text=given[0] in ("text", "text_b64") if given else False)
        return self

    def _check_options(self, *, is_text: bool) -> None:
        for name in ("next_chars", "window"):
            if getattr(self, name) is not None and not is_text:
                raise conflict(f"{name} is for a text; leave it out with continuations")
        if self.next_chars is not None and self.window is not None:
            raise conflict("next_chars and window exclude each other; leave one out")

    def _check_scored(self, given: list[str]) -> None:
        if len(given) != 1:
            raise conflict(f"give exactly one of {', '.join(SCORED_FIELDS)}")


# Fields of `POST /score` that are not those of a text.
REQUEST_OPTIONS = ("items", "deadline_s", "priority", "model")
# Options that texts of one request share unless a text has its own.
SHARED_OPTIONS = ("outputs", "top_k")
TEXT_OPTIONS = tuple(
    name
    for name in TextRequest.model_fields
    if name not in (*SCORED_FIELDS, *CONTEXT_FIELDS, *SHARED_OPTIONS)
)
"""Options of a single text; with `items` they stand in each item."""
