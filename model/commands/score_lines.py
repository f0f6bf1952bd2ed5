"""Scores a stream of JSON lines: one line out for each line in, in order, in bounded memory."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

import orjson

from contract.errors import (
    ClientError,
    ScoringFailed,
    ServiceError,
    error_body,
)
from contract.errors import OutOfMemory as TooLargeForMemory
from contract.grammar.limits import DEFAULT_LIMITS, FixedLimits, RequestLimits
from contract.grammar.line_fields import NO_COLUMNS, Columns, check_line, id_of_line
from contract.grammar.lines import Line, parse_line, read_lines
from contract.grammar.result_json import dump_result
from model import errors
from model.scorer import ModelInfo, Scorer
from model.scoring.request import ScoreRequest

PIECE_BYTES = 1 << 16
# Lines are read ahead, so that texts of similar length share a pass: by default 30 passes of a CPU,
# or 8 of a GPU.
GATHERED_BYTES = 1 << 16
GATHERED_LINES = 4096


@dataclass(slots=True)
class _ScoredLine:
    """One line of input, and its result or error."""

    custom_id: str | None = None
    request: ScoreRequest | None = None
    result: dict[str, Any] | None = None
    error: ServiceError | None = None

    def as_json(self) -> bytes:
        outcome = (
            {"result": self.result} if self.error is None else {"error": error_body(self.error)}
        )
        return dump_result({"custom_id": self.custom_id, **outcome}, orjson.OPT_APPEND_NEWLINE)


def score_lines(
    source: BinaryIO,
    target: BinaryIO,
    scorer: Scorer,
    *,
    limits: FixedLimits = DEFAULT_LIMITS,
    columns: Columns = NO_COLUMNS,
    on_pass: Callable[[int], None] | None = None,
) -> tuple[int, int]:
    """Score each line that is not blank; return the numbers of lines and of failed lines.

    A line is taken or refused, and gets the result, as in an upload to `/batches`: the same code
    reads both. Its `custom_id` comes back with the `result` or the `error`.

    Raises:
        MalformedBody: the stream is in UTF-16 or UTF-32.
    """
    # As the service, which takes no text that the loaded model cannot read.
    longest = min(limits.max_text_bytes, scorer.info.max_text_bytes)
    num_lines = num_failed = 0
    for lines in _gather(source, scorer.info, replace(limits, max_text_bytes=longest), columns):
        _score(scorer, [line for line in lines if line.request is not None], on_pass)
        target.writelines(line.as_json() for line in lines)
        target.flush()
        num_lines += len(lines)
        num_failed += sum(line.error is not None for line in lines)
    return num_lines, num_failed


def _score(scorer: Scorer, lines: list[_ScoredLine], on_pass: Callable[[int], None] | None) -> None:
    """Score `lines`; where that fails, score the halves, until the line at fault is alone."""
    requests = [line.request for line in lines if line.request is not None]
    try:
        results = scorer.score(requests, on_pass=on_pass, for_json=True)
    except (errors.OutOfMemory, errors.ScoringFailed) as error:
        if len(lines) == 1:
            is_memory = isinstance(error, errors.OutOfMemory)
            lines[0].error = (TooLargeForMemory if is_memory else ScoringFailed)(str(error))
            return
        middle = len(lines) // 2
        _score(scorer, lines[:middle], on_pass)
        _score(scorer, lines[middle:], on_pass)
        return
    for line, result in zip(lines, results, strict=True):
        line.result = result


def _gather(
    source: BinaryIO, info: ModelInfo, limits: RequestLimits, columns: Columns
) -> Iterator[list[_ScoredLine]]:
    """Yield lists of lines whose texts have about `GATHERED_BYTES` together."""
    pieces = iter(partial(source.readline, PIECE_BYTES), b"")
    gathered: list[_ScoredLine] = []
    num_bytes = 0
    for line in read_lines(pieces, max_line_bytes=limits.max_body_bytes, max_lines=sys.maxsize):
        read = _read(line, info, limits, columns)
        gathered.append(read)
        num_bytes += read.request.num_bytes if read.request else 0
        if num_bytes >= GATHERED_BYTES or len(gathered) >= GATHERED_LINES:
            yield gathered
            gathered, num_bytes = [], 0
    if gathered:
        yield gathered


def _read(line: Line, info: ModelInfo, limits: RequestLimits, columns: Columns) -> _ScoredLine:
    read = _ScoredLine()
    try:
        fields = parse_line(line, limits.max_body_bytes)
        read.custom_id = id_of_line(fields, columns)
        read.request = ScoreRequest.from_json(
            check_line(fields, limits, columns=columns).request,
            max_text_bytes=info.max_text_bytes,
            window_size=info.window_size,
        )
    except ClientError as error:
        read.error = error
    return read
