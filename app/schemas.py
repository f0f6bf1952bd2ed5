"""The JSON that the API takes, as checked models; /openapi.json is made from them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Output = Literal["summary", "bytes", "top_k", "curvature"]
OUTPUTS: tuple[Output, ...] = ("summary", "bytes", "top_k", "curvature")
MAX_TOP_K = 320
DEFAULT_TOP_K = 5
MAX_CUSTOM_ID_CHARS = 128

# Each names one text in two forms: Unicode, or any bytes in base64.
_SCORED = ("text", "text_b64", "continuation", "continuation_b64", "continuations")
_SCORED_FIELDS = (*_SCORED, "continuations_b64")
# A list of wrong values is refused at its first: one error says as much as a million.
Texts = Annotated[list[str], Field(min_length=1, fail_fast=True)]


class TextRequest(BaseModel):
    """One text to score, or continuations of one context."""

    model_config = ConfigDict(extra="forbid", strict=True)

    custom_id: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_CUSTOM_ID_CHARS,
        description="Your own name for the text; comes back with its result.",
    )
    text: str | None = Field(None, description="The text to score; its UTF-8 bytes are read.")
    text_b64: str | None = Field(
        None, description="Any bytes to score, in standard base64, in place of `text`."
    )
    context: str | None = Field(
        None, description="What precedes the continuations; conditions them, is not scored."
    )
    context_b64: str | None = Field(None, description="`context` as base64.")
    continuation: str | None = Field(None, description="The text to score given `context`.")
    continuation_b64: str | None = Field(None, description="`continuation` as base64.")
    continuations: Texts | None = Field(
        None, description="Several texts, each scored given the same `context`."
    )
    continuations_b64: Texts | None = Field(None, description="`continuations` as base64.")
    outputs: list[Output] | None = Field(
        None,
        min_length=1,
        max_length=len(OUTPUTS),
        description="What the result holds beside the summary, which is always there.",
    )
    top_k: int | None = Field(
        None,
        ge=1,
        le=MAX_TOP_K,
        description=(
            "How many likeliest bytes the output `top_k` lists at each position; "
            f"{DEFAULT_TOP_K} unless given."
        ),
    )

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> "TextRequest":
        given = [name for name in _SCORED_FIELDS if getattr(self, name) is not None]
        self._check_scored(given)
        contexts = [n for n in ("context", "context_b64") if getattr(self, n) is not None]
        if len(contexts) > 1:
            raise _conflict("give either context or context_b64")
        if contexts and not (given and given[0].startswith("continuation")):
            raise _conflict("a context needs a continuation or continuations to score")
        if self.top_k is not None and "top_k" not in (self.outputs or ()):
            raise _conflict("top_k is given but outputs does not list top_k")
        return self

    def _check_scored(self, given: list[str]) -> None:
        if len(given) != 1:
            raise _conflict(f"give exactly one of {', '.join(_SCORED_FIELDS)}")


class ScoreBody(TextRequest):
    """What `POST /score` takes: one text, or several as `items`."""

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
            raise _conflict(f"give exactly one of {', '.join(_SCORED_FIELDS)}, items")
        if self.items is not None and self.custom_id is not None:
            raise _conflict("with items, custom_id belongs into each item")


def _conflict(message: str) -> PydanticCustomError:
    return PydanticCustomError("conflict", message)
