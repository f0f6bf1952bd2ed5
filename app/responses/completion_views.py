"""Makes the JSON of completions and of the tokenizer, in OpenAI's and vLLM's forms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.requests.byte_tokens import BOS, EOS, decode, name_of, offsets
from contract.grammar.completion_request import CompletionBody, Prompt
from contract.grammar.vocabulary import BOS_ID, EOS_ID, NUM_SPECIAL_IDS, VOCABULARY_SIZE

Pairs = Sequence[Sequence[float]]
"""`[byte, log_prob_nats]` each, likeliest first, as in the output `top_k`."""

# Making a choice of a byte of JSON takes about as long as checking this many bytes of a body.
WORK_PER_BYTE = 4

# The shortest decimal form of a float32 takes at most 15 characters.
_NUMBER = 15 + 1
# The longest JSON of one of the likeliest, such as `"byte:c3":-1.2345678e-05,`.
_PAIR = 10 + _NUMBER
# That of an id without them: its name, log-probability, offset, braces, and its character.
_ID = 10 + _NUMBER + 8 + 3 + 6
# What surrounds them.
_ENVELOPE = 1024


@dataclass(frozen=True, slots=True)
class Token:
    """One entry of `logprobs`."""

    name: str
    log_prob_nats: float | None
    likeliest: dict[str, float] | None


def completion(
    body: CompletionBody,
    prompts: Sequence[Prompt],
    results: Sequence[dict[str, Any]],
    *,
    request_id: str,
    model: Mapping[str, Any],
    now: float,
) -> dict[str, Any]:
    """The answer to `body`.

    Args:
        results: the scores of each prompt, and of one byte more where an id is to follow, with the
            outputs `bytes` and `top_k`.
        model: the model that gave them, as a result shows it.
        now: Unix time, seconds.
    """
    choices = [
        choice(index, body, prompt, scores)
        for index, (prompt, scores) in enumerate(zip(prompts, results, strict=True))
    ]
    about = about_completion(body, prompts, request_id=request_id, model=model, now=now)
    return {"choices": choices, **about}


def about_completion(
    body: CompletionBody,
    prompts: Sequence[Prompt],
    *,
    request_id: str,
    model: Mapping[str, Any],
    now: float,
) -> dict[str, Any]:
    """The answer to `body` without its choices; arguments as for `completion`."""
    num_given = sum(len(prompt.text) + prompt.has_bos for prompt in prompts)
    num_new = body.max_tokens * len(prompts)
    return {
        "id": f"cmpl-{request_id}",
        "object": "text_completion",
        "created": int(now),
        "model": model["name"],
        # Workers of release 0.1 tell none.
        "system_fingerprint": model.get("fingerprint", ""),
        "usage": {
            "prompt_tokens": num_given,
            "completion_tokens": num_new,
            "total_tokens": num_given + num_new,
        },
    }


def most_bytes(body: CompletionBody, prompt: Prompt) -> int:
    """The most bytes of JSON that the scores of a prompt take, and as many as its choice takes."""
    # The scores hold one pair even if none is asked for; a choice adds the actual byte to them.
    num_pairs = max(body.logprobs or 0, 1) + 1
    # One more may follow, and one come before.
    return _ENVELOPE + (_ID + _PAIR * num_pairs) * (len(prompt.text) + 2)


def tokenizer_view() -> dict[str, Any]:
    """The JSON of `/tokenizer_info`: the vocabulary and its special ids."""
    return {
        "tokenizer_class": "EvaByteBytes",
        "vocab_size": VOCABULARY_SIZE,
        "bos_token": BOS,
        "bos_token_id": BOS_ID,
        "eos_token": EOS,
        "eos_token_id": EOS_ID,
        "chat_template": None,
    }


def choice(
    index: int, body: CompletionBody, prompt: Prompt, scores: dict[str, Any]
) -> dict[str, Any]:
    """The choice that answers one prompt of `body`."""
    shown = prompt.text if body.echo else b""
    is_end = False
    if body.max_tokens:
        byte = scores["top_k"][len(prompt.text)][0][0]
        is_end = byte == EOS_ID - NUM_SPECIAL_IDS
        shown += bytes([byte]) if byte >= 0 else b""
    return {
        "index": index,
        "text": decode(shown),
        "logprobs": None if body.logprobs is None else _log_probs(body, prompt, scores, shown),
        "finish_reason": "stop" if is_end else "length",
    }


def _log_probs(
    body: CompletionBody, prompt: Prompt, scores: dict[str, Any], shown: bytes
) -> dict[str, Any]:
    tokens = [*(_given(prompt, scores) if body.echo else ()), *_following(body, prompt, scores)]
    of_bytes = [0] * (body.echo and prompt.has_bos) + offsets(shown)
    # A special id that follows stands behind the last character.
    of_bytes += [len(decode(shown))] * (len(tokens) - len(of_bytes))
    return {
        "tokens": [token.name for token in tokens],
        "token_logprobs": [token.log_prob_nats for token in tokens],
        "top_logprobs": [token.likeliest for token in tokens] if body.logprobs else None,
        "text_offset": of_bytes,
    }


def _given(prompt: Prompt, scores: dict[str, Any]) -> list[Token]:
    """The ids of the prompt, each with the likeliest ones in its place and itself."""
    of_bytes = scores["bytes"]
    tokens = [
        Token(name_of(byte), nats, _likeliest(pairs, byte, nats, is_likeliest=rank == 1))
        # Behind the prompt the scores may hold one byte more.
        for byte, nats, rank, pairs in zip(
            prompt.text,
            of_bytes["log_prob_nats"],
            of_bytes["rank"],
            scores["top_k"],
            strict=False,
        )
    ]
    return [Token(BOS, None, None), *tokens] if prompt.has_bos else tokens


def _following(body: CompletionBody, prompt: Prompt, scores: dict[str, Any]) -> list[Token]:
    if not body.max_tokens:
        return []
    pairs = scores["top_k"][len(prompt.text)]
    byte, nats = pairs[0]
    return [Token(name_of(byte), nats, _likeliest(pairs, byte, nats, is_likeliest=True))]


def _likeliest(pairs: Pairs, byte: int, nats: float, *, is_likeliest: bool) -> dict[str, float]:
    # Clients call a token greedy if nothing here exceeds it, be it by rounding alone.
    limit = nats if is_likeliest else math.inf
    return {**{name_of(int(b)): min(other, limit) for b, other in pairs}, name_of(byte): nats}
