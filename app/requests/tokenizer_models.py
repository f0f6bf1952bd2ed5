"""Defines the request bodies of the tokenizer's routes, with vLLM's names."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from contract.grammar.model_names import ModelName
from contract.grammar.numbers import wholes
from contract.grammar.vocabulary import VOCABULARY_SIZE

Ids = Annotated[
    list[Annotated[int, Field(ge=0, lt=VOCABULARY_SIZE)]],
    Field(fail_fast=True),
    BeforeValidator(wholes),
]


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
