"""Makes the HTTP answers of completions; a large one is sent choice by choice."""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import orjson
from flask import Response

from app.responses.answer_memory import cut
from app.responses.completion_views import (
    WORK_PER_BYTE,
    about_completion,
    choice,
    completion,
    most_bytes,
)
from app.responses.json import json_response
from app.service.components import Service
from app.service.turns import in_turns
from contract.errors import ServiceError
from contract.grammar.completion_request import CompletionBody, Prompt
from contract.grammar.lines import whole_lines
from contract.messages import Record, error_from_body
from contract.service_clock import CLOCK
from contract.stored_results import load_item


def held_bytes(body: CompletionBody, prompts: Sequence[Prompt]) -> int:
    """The most bytes that an answer takes at once while it is sent: the prompts and one choice."""
    return sum(len(prompt.text) for prompt in prompts) + max(
        most_bytes(body, prompt) for prompt in prompts
    )


def completion_answer(
    service: Service,
    record: Record,
    body: CompletionBody,
    prompts: Sequence[Prompt],
    request_id: str,
) -> Response:
    """The answer to a completion request; `record` must stay until it is sent.

    Raises:
        ServiceError: the error of the job, or of the first prompt that could not be scored.
    """
    if record.error is not None:
        raise error_from_body(record.error)
    shown: dict[str, Any] = {"request_id": request_id, "now": CLOCK.now()}
    if record.apart is None:
        results = [_scores(item) for item in record.result["items"]]
        model = record.result["model"]
        return json_response(completion(body, prompts, results, model=model, **shown))
    lines = whole_lines(in_turns(service.jobs.result_pieces(record)))
    if record.apart.num_errors:
        raise _first_error(lines)
    pieces = _pieces(service, lines, body, prompts, shown)
    # Errors of the beginning are still an answer.
    pieces = itertools.chain([next(pieces)], pieces)
    return Response(in_turns(pieces), content_type="application/json")


def _pieces(
    service: Service,
    lines: Iterator[bytes],
    body: CompletionBody,
    prompts: Sequence[Prompt],
    shown: dict[str, Any],
) -> Iterator[bytes]:
    """The JSON of a completion, made of the lines of a stored result; one choice is held at once.

    The first line and the last hold the rest of the result, the others an item each.
    """

    def made(index: int, prompt: Prompt, line: bytes) -> bytes:
        make = partial(_choice_json, index, body, prompt, line)
        return service.large_work.run(WORK_PER_BYTE * len(line), make)

    before, rest = b'{"choices":[', next(lines)
    for index, prompt in enumerate(prompts):
        pieces = cut(made(index, prompt, next(lines)))
        yield before
        yield from pieces
        before = b","
    model = orjson.loads(rest + next(lines))["model"]
    about = about_completion(body, prompts, model=model, **shown)
    yield b"]," + orjson.dumps(about, option=orjson.OPT_APPEND_NEWLINE)[1:]


def _choice_json(index: int, body: CompletionBody, prompt: Prompt, line: bytes) -> bytes:
    return orjson.dumps(choice(index, body, prompt, _scores(load_item(line))))


def _scores(item: dict[str, Any]) -> dict[str, Any]:
    """The scores of an item. Raises: ServiceError, if it has an error in their place."""
    if "error" in item:
        raise error_from_body(item["error"])
    scores: dict[str, Any] = item["result"]
    return scores


def _first_error(lines: Iterator[bytes]) -> ServiceError:
    line = next(line for line in lines if line.startswith(b'{"error":'))
    return error_from_body(load_item(line)["error"])
