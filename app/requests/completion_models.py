"""Defines the request bodies of the routes for lm-eval, with OpenAI's and vLLM's names.

A parameter that evascore does not implement is accepted only with the value that changes nothing.
It is never ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.requests.models import ModelName
from contract.grammar import schema_rules
from contract.grammar.numbers import AsWhole, Whole, wholes
from contract.grammar.vocabulary import BOS_ID, NUM_SPECIAL_IDS, VOCABULARY_SIZE

MAX_LOGPROBS = 20


def _are_prompts(prompt: Any) -> Any:
    """Check by hand: pydantic would report one error for each of the forms."""
    prompt = wholes(prompt)
    if isinstance(prompt, list) and list in set(map(type, prompt)):
        prompt = list(map(wholes, prompt))
    is_list = isinstance(prompt, list) and bool(prompt)
    if isinstance(prompt, str) or (is_list and (_are_ids(prompt) or all(map(_is_prompt, prompt)))):
        return prompt
    raise PydanticCustomError(
        "prompt",
        f"must be a string, a list of ids from 0 to {VOCABULARY_SIZE - 1}, "
        "or a list of such strings or lists",
    )


def _is_prompt(prompt: Any) -> bool:
    return isinstance(prompt, str) or (isinstance(prompt, list) and _are_ids(prompt))


def _are_ids(values: list[Any]) -> bool:
    return set(map(type, values)) <= {int} and (
        not values or (min(values) >= 0 and max(values) < VOCABULARY_SIZE)
    )


Ids = Annotated[
    list[Annotated[int, Field(ge=0, lt=VOCABULARY_SIZE)]],
    Field(fail_fast=True),
    BeforeValidator(wholes),
]
_BYTE = {"type": "integer", "minimum": NUM_SPECIAL_IDS, "maximum": VOCABULARY_SIZE - 1}
_BYTES = {"type": "array", "items": _BYTE}
_BYTES_AFTER_BOS = {**_BYTES, "prefixItems": [{"type": "integer", "enum": [BOS_ID]}]}


def _prompts(min_bytes: int) -> schema_rules.Schema:
    """One prompt or several, each of at least `min_bytes`."""
    one = [
        {"type": "string", "minLength": min_bytes},
        {**_BYTES, "minItems": min_bytes},
        {**_BYTES_AFTER_BOS, "minItems": min_bytes + 1},
    ]
    # An empty list is not a prompt but a list of no prompts.
    alone = [one[0], {**one[1], "minItems": 1}, one[2]]
    return {"anyOf": [*alone, {"type": "array", "items": {"anyOf": one}, "minItems": 1}]}


Prompts = Annotated[Any, AfterValidator(_are_prompts), WithJsonSchema(_prompts(0))]
Zero = Annotated[float, Field(ge=0, le=0)]
One = Annotated[int, Field(ge=1, le=1), AsWhole]
ZeroOrOne = Annotated[int, Field(ge=0, le=1), AsWhole]
NumLogProbs = Annotated[int, Field(ge=0, le=MAX_LOGPROBS), AsWhole]
# Either prompts are scored, or an id follows them; only then may they be empty.
_FORMS: schema_rules.Schema = {
    "anyOf": [
        schema_rules.form(
            {"max_tokens": {"enum": [0]}, "echo": {"enum": [True]}, "prompt": _prompts(1)},
        ),
        schema_rules.form({"max_tokens": {"enum": [1]}, "temperature": {"type": "number"}}),
    ]
}


class CompletionBody(BaseModel):
    """Prompts to score, and at most one id to follow each."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=_FORMS)

    model: ModelName = None
    prompt: Prompts = Field(
        description="A text, a list of texts, a list of ids, or a list of lists of ids."
    )
    max_tokens: ZeroOrOne = Field(
        description="1 for the likeliest id after the prompt, 0 for none."
    )
    temperature: Zero | None = Field(
        None, description="Must be 0 with max_tokens 1: ids are never sampled."
    )
    echo: bool = Field(False, description="Whether the answer begins with the prompt.")
    logprobs: NumLogProbs | None = Field(
        None,
        description="How many likeliest tokens to list at each place, with log-probabilities.",
    )
    seed: Whole | None = Field(None, description="Has no effect: nothing is sampled.")
    n: One | None = None
    best_of: One | None = None
    top_p: Annotated[float, Field(ge=1, le=1)] | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    stream: Literal[False] | None = None
    suffix: None = None
    stop: Annotated[list[str], Field(max_length=0)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _asks_for_something(self) -> "CompletionBody":
        if not self.echo and not self.max_tokens:
            raise _conflict("nothing is asked for; set echo to true, or max_tokens to 1")
        if self.max_tokens and self.temperature is None:
            raise _conflict("max_tokens 1 needs temperature 0, because nothing is sampled; set it")
        return self


class TokenizeBody(BaseModel):
    """A text to convert to ids; `<bos>` or `<eos>` alone become special ids."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str
    add_special_tokens: StrictBool = Field(True, description="Begin with the begin-of-text id.")
    model: ModelName = None


class DetokenizeBody(BaseModel):
    """Ids to convert to text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tokens: Ids
    model: ModelName = None


def _conflict(message: str) -> PydanticCustomError:
    return PydanticCustomError("conflict", message)
