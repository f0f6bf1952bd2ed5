"""The JSON that the API takes, as checked models; /openapi.json is made from them."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.requests import schema_rules
from app.requests.numbers import MAX_EXACT, AsWhole, wholes
from app.requests.schema_rules import SCORED_FIELDS

Output = Literal["summary", "bytes", "top_k", "curvature"]
OUTPUTS: tuple[Output, ...] = ("summary", "bytes", "top_k", "curvature")
MAX_TOP_K = 320
DEFAULT_TOP_K = 5
MAX_CUSTOM_ID_CHARS = 128
MAX_NEXT_CHARS = 100
UNITS = ("words", "lines", "characters")

# A list of wrong values is refused at its first: one error says as much as a million.
Texts = Annotated[list[str], Field(min_length=1, fail_fast=True)]
# Decoded where the bytes are counted; the pattern is for who reads the description.
_BASE64 = {"type": "string", "contentEncoding": "base64", "pattern": schema_rules.BASE64_PATTERN}
Base64 = Annotated[str, WithJsonSchema(_BASE64)]
Base64s = Annotated[list[Base64], Field(min_length=1, fail_fast=True)]


def _are_spans(spans: Any) -> Any:
    """A unit, or ranges; checked by hand, for pydantic would tell two errors, one for each."""
    if spans in (None, *UNITS):
        return spans
    ranges = list(map(wholes, spans)) if isinstance(spans, list) else []
    if not ranges or not all(map(_is_range, ranges)):
        raise PydanticCustomError(
            "spans", f"must be one of {', '.join(UNITS)}, or a list of [start, end], both from 0 on"
        )
    return ranges


def _is_range(span: Any) -> bool:
    is_pair = isinstance(span, list) and len(span) == 2 and all(type(each) is int for each in span)
    return is_pair and min(span) >= 0 and max(span) <= MAX_EXACT


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
                {"type": "null"},
            ]
        }
    ),
]


TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K), AsWhole]
NumNextChars = Annotated[int, Field(ge=1, le=MAX_NEXT_CHARS), AsWhole]
NumBytes = Annotated[int, Field(ge=1, le=MAX_EXACT), AsWhole]


class SlidingWindow(BaseModel):
    """Overlapping pieces of a text beyond the model's context; docs/scoring.md has the rule."""

    model_config = ConfigDict(extra="forbid", strict=True)

    size: NumBytes = Field(description="Bytes that are read at once; `max_text_bytes` at most.")
    stride: NumBytes = Field(
        description=(
            "Bytes from the start of one window to that of the next: `size` if it is larger, and a "
            "multiple of the model's own window, which /info tells, else the job fails."
        ),
    )


class TextRequest(BaseModel):
    """One text to score, or continuations of one context."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra=schema_rules.of_one_text()
    )

    custom_id: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_CUSTOM_ID_CHARS,
        description="Your own name for the text; comes back with its result.",
    )
    text: str | None = Field(None, description="The text to score; its UTF-8 bytes are read.")
    text_b64: Base64 | None = Field(
        None, description="Any bytes to score, in standard base64, in place of `text`."
    )
    context: str | None = Field(
        None, description="What precedes the continuations; conditions them, is not scored."
    )
    context_b64: Base64 | None = Field(None, description="`context` as base64.")
    continuation: str | None = Field(None, description="The text to score given `context`.")
    continuation_b64: Base64 | None = Field(None, description="`continuation` as base64.")
    continuations: Texts | None = Field(
        None, description="Several texts, each scored given the same `context`."
    )
    continuations_b64: Base64s | None = Field(None, description="`continuations` as base64.")
    outputs: list[Output] | None = Field(
        None,
        min_length=1,
        max_length=len(OUTPUTS),
        description="What the result holds beside the summary, which is always there.",
    )
    top_k: TopK | None = Field(
        None,
        description=(
            "How many likeliest bytes the output `top_k` lists at each position: "
            f"{DEFAULT_TOP_K} unless given; a number asks for that output."
        ),
    )
    spans: Spans = Field(
        None,
        description=(
            "Scores of the text's words, lines or characters, or of ranges `[start, end]` of its "
            "bytes, the end exclusive; ranges are cut to the text, as slices are."
        ),
    )
    next_chars: NumNextChars | None = Field(
        None,
        description="How many of the likeliest characters after the text, which may be empty.",
    )
    window: SlidingWindow | None = Field(
        None, description="Score a text of up to `max_windowed_bytes` in overlapping windows."
    )

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> "TextRequest":
        given = [name for name in SCORED_FIELDS if getattr(self, name) is not None]
        self._check_scored(given)
        contexts = [n for n in ("context", "context_b64") if getattr(self, n) is not None]
        if len(contexts) > 1:
            raise _conflict("give either context or context_b64")
        if contexts and not (given and given[0].startswith("continuation")):
            raise _conflict("a context needs a continuation or continuations to score")
        self._check_options(is_text=given[0] in ("text", "text_b64") if given else False)
        return self

    def _check_options(self, *, is_text: bool) -> None:
        for name in ("next_chars", "window"):
            if getattr(self, name) is not None and not is_text:
                raise _conflict(f"{name} is for a text; leave it out with continuations")
        if self.next_chars is not None and self.window is not None:
            raise _conflict("next_chars takes a text that is read at once; leave window out")

    def _check_scored(self, given: list[str]) -> None:
        if len(given) != 1:
            raise _conflict(f"give exactly one of {', '.join(SCORED_FIELDS)}")


class ScoreBody(TextRequest):
    """What `POST /score` takes: one text, or several as `items`."""

    model_config = ConfigDict(json_schema_extra=schema_rules.of_texts())

    items: list[TextRequest] | None = Field(
        None,
        min_length=1,
        description="Several texts in one job, each with its own result or error.",
    )
    deadline_s: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds from now after which the job is not begun any more.",
    )
    priority: Literal["interactive", "bulk"] | None = Field(
        None, description="Bulk jobs run when no interactive one waits, and never starve."
    )

    def _check_scored(self, given: list[str]) -> None:
        if len(given) + (self.items is not None) != 1:
            raise _conflict(f"give exactly one of {', '.join(SCORED_FIELDS)}, items")
        for name in schema_rules.OF_ITEMS:
            if self.items is not None and getattr(self, name) is not None:
                raise _conflict(f"with items, {name} belongs into each item")


class BatchOptions(BaseModel):
    """What the query of `POST /batches` may say: how to take lines, and what they leave out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    on_error: Literal["fail", "skip"] = Field(
        "fail",
        description=(
            "`fail`: one bad line refuses all; `skip`: it becomes a result with its error. "
            "An array is always taken or refused as a whole."
        ),
    )
    outputs: list[Output] | None = Field(None, min_length=1, max_length=len(OUTPUTS))
    top_k: TopK | None = None
    deadline_s: float | None = Field(None, gt=0, allow_inf_nan=False)


def _conflict(message: str) -> PydanticCustomError:
    return PydanticCustomError("conflict", message)
