"""Scores a stream of JSON lines: one line in, one line out, in order, in bounded memory."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from model.errors import ModelError, OutOfMemory, RequestInvalid, ScoringFailed
from model.scorer import ModelInfo, Scorer
from model.scoring.request import ScoreRequest

# As much as the service takes in one request by default.
MAX_LINE_BYTES = 8 << 20
# Texts read ahead, so that those of like length share a pass; 30 passes of the default size.
GATHERED_BYTES = 1 << 16
GATHERED_LINES = 4096


@dataclass(slots=True)
class _Line:
    """One line of input on its way to one line of output."""

    custom_id: Any = None
    request: ScoreRequest | None = None
    result: dict[str, Any] | None = None
    error: RequestInvalid | None = None

    def as_json(self) -> bytes:
        answer: dict[str, Any] = {"custom_id": self.custom_id}
        if self.error is None:
            answer["result"] = self.result
        else:
            answer["error"] = {"code": self.error.code, "message": self.error.message}
            if self.error.pointer:
                answer["error"]["pointer"] = self.error.pointer
        return orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE)


def score_lines(
    source: BinaryIO,
    target: BinaryIO,
    scorer: Scorer,
    *,
    on_pass: Callable[[int], None] | None = None,
) -> tuple[int, int]:
    """Score each line of `source` that is not blank; return how many there were, and failed.

    A line is an object that `ScoreRequest.from_json` takes; `custom_id`, a string or an integer,
    comes back with the `result` or, when the line is at fault, with an `error`.
    """
    num_lines = num_failed = 0
    for lines in _gather(source, scorer.info):
        _score(scorer, [line for line in lines if line.request is not None], on_pass)
        target.writelines(line.as_json() for line in lines)
        target.flush()
        num_lines += len(lines)
        num_failed += sum(line.error is not None for line in lines)
    return num_lines, num_failed


def _score(scorer: Scorer, lines: list[_Line], on_pass: Callable[[int], None] | None) -> None:
    """Score `lines`; where that fails, score the halves, until the line at fault is alone."""
    requests = [line.request for line in lines if line.request is not None]
    try:
        results = scorer.score(requests, on_pass=on_pass)
    except (OutOfMemory, ScoringFailed) as error:
        if len(lines) == 1:
            lines[0].error = _as_line_error(error)
            return
        middle = len(lines) // 2
        _score(scorer, lines[:middle], on_pass)
        _score(scorer, lines[middle:], on_pass)
        return
    for line, result in zip(lines, results, strict=True):
        line.result = result


def _as_line_error(error: ModelError) -> RequestInvalid:
    code = "out_of_memory" if isinstance(error, OutOfMemory) else "scoring_failed"
    return RequestInvalid(code, str(error))


def _gather(source: BinaryIO, info: ModelInfo) -> Iterator[list[_Line]]:
    """Yield lists of lines whose texts have about `GATHERED_BYTES` together."""
    lines: list[_Line] = []
    num_bytes = 0
    for raw in _raw_lines(source):
        line = _read(raw, info)
        lines.append(line)
        num_bytes += line.request.num_bytes if line.request else 0
        if num_bytes >= GATHERED_BYTES or len(lines) >= GATHERED_LINES:
            yield lines
            lines, num_bytes = [], 0
    if lines:
        yield lines


def _raw_lines(source: BinaryIO) -> Iterator[bytes]:
    """Yield the lines that are not blank, of a longer one the first `MAX_LINE_BYTES` + 1."""
    while raw := source.readline(MAX_LINE_BYTES + 1):
        rest = raw
        while not rest.endswith(b"\n") and (rest := source.readline(MAX_LINE_BYTES)):
            pass
        if not raw.isspace():
            yield raw


def _read(raw: bytes, info: ModelInfo) -> _Line:
    line = _Line()
    try:
        fields = _parse(raw)
        if isinstance(fields, dict):
            line.custom_id = _custom_id(fields)
        line.request = ScoreRequest.from_json(
            fields, max_text_bytes=info.max_text_bytes, window_size=info.window_size
        )
    except RequestInvalid as error:
        line.error = error
    return line


def _custom_id(fields: dict[str, Any]) -> str | int | None:
    """The name of a line, which must be fit to be written out again."""
    custom_id = fields.get("custom_id")
    if custom_id is not None and type(custom_id) not in (str, int):
        raise RequestInvalid("invalid_field", "custom_id is no string or integer", "/custom_id")
    try:
        orjson.dumps(custom_id)
    except orjson.JSONEncodeError:
        message = "custom_id holds a lone surrogate or is beyond 64 bits"
        raise RequestInvalid("invalid_field", message, "/custom_id") from None
    return custom_id


def _parse(raw: bytes) -> Any:
    if len(raw) > MAX_LINE_BYTES:
        raise RequestInvalid("line_too_long", f"the limit of a line is {MAX_LINE_BYTES:,} bytes")
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        # orjson refuses lone surrogates as it does broken JSON; this one lets them through to
        # the field that holds them.
        try:
            return json.loads(raw, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise RequestInvalid("invalid_json", "the line is not JSON in UTF-8") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
