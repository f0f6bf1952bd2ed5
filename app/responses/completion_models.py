"""Models of the answers of the routes for lm-eval; the names are OpenAI's and vLLM's."""

from typing import Literal

from pydantic import (
    Field,
)

from app.responses.models import Answer


class LogProbs(Answer):
    """One entry per token of the answer."""

    tokens: list[str] = Field(description="ASCII as it is, other bytes as `byte:e9`.")
    token_logprobs: list[float | None] = Field(
        description="ln p(token | all before it); null for a begin-of-text id."
    )
    top_logprobs: list[dict[str, float] | None] | None = Field(
        description="The likeliest tokens and the actual one; null with logprobs 0."
    )
    text_offset: list[int] = Field(description="The character of `text` that it belongs to.")


class Choice(Answer):
    """The answer to one prompt."""

    index: int = Field(description="Its place among the prompts.")
    text: str = Field(description="With U+FFFD for bytes that are not UTF-8.")
    logprobs: LogProbs | None
    finish_reason: Literal["length", "stop"] = Field(description="`stop`: after end-of-text.")


class CompletionUsage(Answer):
    """Ids read and given, begin-of-text ids of the prompts included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(Answer):
    """The answers to all prompts."""

    id: str
    object: Literal["text_completion"]
    created: int = Field(description="Unix time, seconds.")
    model: str
    choices: list[Choice]
    usage: CompletionUsage


class Tokens(Answer):
    """The ids of a text."""

    count: int
    tokens: list[int]


class Prompt(Answer):
    """The text of ids; special ids appear by name, U+FFFD where the bytes are not UTF-8."""

    prompt: str


class TokenizerInfo(Answer):
    """How text becomes ids."""

    tokenizer_class: str
    vocab_size: int
    bos_token: str
    bos_token_id: int
    eos_token: str
    eos_token_id: int
    chat_template: None = Field(description="There is none: the model knows no chats.")
