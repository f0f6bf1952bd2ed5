"""Defines the JSON answers of the routes for lm-eval, with OpenAI's and vLLM's names."""

from typing import Literal

from pydantic import (
    Field,
)

from app.responses.models import Answer


class LogProbs(Answer):
    """One entry per token of the answer."""

    tokens: list[str] = Field(description="ASCII characters as they are, other bytes as `byte:e9`.")
    token_logprobs: list[float | None] = Field(
        description="ln p(token | all before it); null for a begin-of-text id."
    )
    top_logprobs: list[dict[str, float] | None] | None = Field(
        description="The likeliest tokens and the actual token; null with logprobs 0."
    )
    text_offset: list[int] = Field(description="Index of the token's character in `text`.")


class Choice(Answer):
    """The answer to one prompt."""

    index: int = Field(description="Index of its prompt.")
    text: str = Field(description="Bytes that are not UTF-8 show as U+FFFD.")
    logprobs: LogProbs | None
    finish_reason: Literal["length", "stop"] = Field(
        description="`stop` if the answer ends with the end-of-text id."
    )


class CompletionUsage(Answer):
    """Ids read and returned, including begin-of-text ids of the prompts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(Answer):
    """The answers to all prompts."""

    id: str
    object: Literal["text_completion"]
    created: int = Field(description="Unix time, seconds.")
    model: str
    system_fingerprint: str = Field(
        description="Of the model: scores of models with one fingerprint differ by rounding alone."
    )
    choices: list[Choice]
    usage: CompletionUsage


class Tokens(Answer):
    """The ids of a text."""

    count: int
    tokens: list[int]


class Prompt(Answer):
    """The text of ids; special ids show by name, bytes that are not UTF-8 as U+FFFD."""

    prompt: str


class TokenizerInfo(Answer):
    """How text becomes ids."""

    tokenizer_class: str
    vocab_size: int
    bos_token: str
    bos_token_id: int
    eos_token: str
    eos_token_id: int
    chat_template: None = Field(description="Null: the model has no chat format.")
