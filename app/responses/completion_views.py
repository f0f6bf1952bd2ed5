"""Makes the JSON of completions and of the tokenizer, in OpenAI's and vLLM's forms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.requests.byte_tokens import BOS, EOS, decode, name_of, offsets
from contract.grammar.completion_request import CompletionBody, Prompt
from contract.grammar.vocabulary import BOS_ID, EOS_ID, NUM_SPECIAL_IDS, VOCABULARY_SIZE
from contract.messages import Record, error_from_body

Pairs = Sequence[Sequence[float]]
"""`[byte, log_prob_nats]` each, likeliest first, as in the output `top_k`."""

# JSON of one id: a name such as `"a",`, a log-probability of 0 such as `0.0,`, and an offset.
_LEAST_ID_BYTES = 4 + 4 + 2
# JSON of one of the likeliest, such as `"a":0.0,`.
_LEAST_PAIR_BYTES = 8


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
    num_given = sum(len(prompt.text) + prompt.has_bos for prompt in prompts)
    num_new = body.max_tokens * len(prompts)
    return {
        "id": f"cmpl-{request_id}",
        "object": "text_completion",
        "created": int(now),
        "model": model["name"],
        # Workers of release 0.1 tell none.
        "system_fingerprint": model.get("fingerprint", ""),
        "choices": [
            {"index": index, **_choice(body, prompt, scores)}
            for index, (prompt, scores) in enumerate(zip(prompts, results, strict=True))
        ],
        "usage": {
            "prompt_tokens": num_given,
            "completion_tokens": num_new,
            "total_tokens": num_given + num_new,
        },
    }


def least_bytes(body: CompletionBody, prompts: Sequence[Prompt]) -> int:
    """The least bytes of JSON that the answer to `body` takes, before the scores are known."""
    if not body.echo:
        return 0
    each = 1 if body.logprobs is None else _LEAST_ID_BYTES + _LEAST_PAIR_BYTES * body.logprobs
    return each * sum(len(prompt.text) for prompt in prompts)


def results_of(record: Record) -> list[dict[str, Any]]:
    """The scores of each prompt.

    Raises:
        ServiceError: the error of the job, or of the first prompt that could not be scored.
    """
    if record.error is not None:
        raise error_from_body(record.error)
    for item in record.result["items"]:
        if "error" in item:
            raise error_from_body(item["error"])
    return [item["result"] for item in record.result["items"]]


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


def _choice(body: CompletionBody, prompt: Prompt, scores: dict[str, Any]) -> dict[str, Any]:
    shown = prompt.text if body.echo else b""
    is_end = False
    if body.max_tokens:
        byte = scores["top_k"][len(prompt.text)][0][0]
        is_end = byte == EOS_ID - NUM_SPECIAL_IDS
        shown += bytes([byte]) if byte >= 0 else b""
    return {
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
