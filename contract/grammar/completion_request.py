"""Checks a completion request in OpenAI's form: prompts to score, and at most one id after each.

A parameter that evascore does not implement is accepted only with the value that changes nothing.
It is never ignored; `seed` and `user`, which clients send, have nothing to act on.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
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

from contract.errors import EmptyText, TextTooLarge
from contract.grammar import schema_rules
from contract.grammar.invalid import invalid
from contract.grammar.model_names import ModelName
from contract.grammar.numbers import AsWhole, Whole, wholes
from contract.grammar.validation import conflict
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
    user: str | None = Field(None, description="Has no effect: it is neither stored nor logged.")
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
            raise conflict("nothing is asked for; set echo to true, or max_tokens to 1")
        if self.max_tokens and self.temperature is None:
            raise conflict("max_tokens 1 needs temperature 0, because nothing is sampled; set it")
        return self


# Which byte it is changes no score before it.
_PLACEHOLDER = b"\0"


@dataclass(frozen=True, slots=True)
class Prompt:
    """The bytes of one prompt."""

    text: bytes
    has_bos: bool
    """Whether its ids begin with the begin-of-text id; then the answer shows that id."""


def prompts_of(body: CompletionBody, *, max_items: int, max_text_bytes: int) -> list[Prompt]:
    """Return the prompts of a request, each checked.

    Raises:
        RequestInvalid, EmptyText, TextTooLarge
    """
    given = body.prompt
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        given = [given]
    if len(given) > max_items:
        raise invalid(
            f"has {len(given)} prompts; the limit is {max_items}, send several requests",
            pointer="/prompt",
        )
    is_single = given is not body.prompt
    pointers = ["/prompt"] if is_single else [f"/prompt/{n}" for n in range(len(given))]
    prompts = [_prompt(each, place) for each, place in zip(given, pointers, strict=True)]
    for prompt, place in zip(prompts, pointers, strict=True):
        _check_length(len(prompt.text) + body.max_tokens, place, max_text_bytes)
    return prompts


def without_prompts(body: CompletionBody) -> CompletionBody:
    """Return the other fields of a request: ids take many times the memory of their `Prompt`."""
    return body.model_copy(update={"prompt": ""})


def texts_to_score(body: CompletionBody, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """Return the request of each prompt, as a worker takes it.

    For the id that follows a prompt, a placeholder byte is scored after it. The answer is the id
    that the model finds likeliest in its place.
    """
    outputs = {"outputs": ["bytes", "top_k"], "top_k": max(body.logprobs or 0, 1)}
    return [
        {"text_b64": encoded(prompt.text + _PLACEHOLDER * body.max_tokens), **outputs}
        for prompt in prompts
    ]


def encoded(text: bytes) -> str:
    """Encode bytes as base64."""
    return base64.b64encode(text).decode("ascii")


def _prompt(given: str | list[int], place: str) -> Prompt:
    if isinstance(given, str):
        return Prompt(_utf8(given, place), has_bos=False)
    has_bos = given[:1] == [BOS_ID]
    try:
        return Prompt(bytes(number - NUM_SPECIAL_IDS for number in given[has_bos:]), has_bos)
    except ValueError:
        raise invalid(
            "holds a special id, which is not scored; give ids of bytes, after at most one id 1",
            pointer=place,
        ) from None


def _utf8(text: str, place: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise invalid("holds a lone surrogate, which is no character", pointer=place) from None


def _check_length(num_bytes: int, place: str, limit_bytes: int) -> None:
    if not num_bytes:
        raise EmptyText(
            "There is nothing to score; give at least one byte, or set max_tokens to 1.",
            errors=[{"detail": "is empty", "pointer": place}],
        )
    if num_bytes > limit_bytes:
        raise TextTooLarge(
            f"A prompt and the id after it have {num_bytes} bytes; the limit is {limit_bytes}. "
            "Shorten the prompt, or set the client's max_length to this limit.",
            limit_bytes=limit_bytes,
            actual_bytes=num_bytes,
            errors=[{"detail": "is too large", "pointer": place}],
        )
