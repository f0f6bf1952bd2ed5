"""Predicts the next characters after each line of a stream, in bounded memory."""

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import orjson

from contract.grammar.encodings import refuse_other_encodings
from contract.grammar.json_text import BYTE_ORDER_MARK
from contract.grammar.outputs import MAX_BYTES_READ_ON
from model.scorer import Scorer

# Lines are read ahead, so that lines of similar length share a pass: 30 passes by default.
GATHERED_BYTES = 1 << 16
GATHERED_LINES = 4096


def predict_lines(
    source: BinaryIO,
    target: BinaryIO,
    scorer: Scorer,
    num_characters: int,
    *,
    on_pass: Callable[[int], None] | None = None,
) -> tuple[int, int]:
    """Write the next characters after each line; return the numbers of lines and of refused lines.

    A line is any bytes before LF or CR LF; an empty line is the empty text. A byte order mark
    before the first line is skipped. The answer is a result of `next_chars.next_characters`. A line
    gets an `error` where the model's context has no room for a character after it.
    """
    max_bytes = scorer.info.max_text_bytes - MAX_BYTES_READ_ON
    refusal = {
        "error": {
            "code": "text_too_large",
            "message": f"the line is longer than {max_bytes:,} bytes; send only its last bytes",
        }
    }
    num_lines = num_refused = 0
    for lines in _gather(source, max_bytes):
        texts = [line for line in lines if len(line) <= max_bytes]
        found = iter(scorer.predict_characters(texts, num_characters, on_pass=on_pass))
        answers = [next(found) if len(line) <= max_bytes else refusal for line in lines]
        target.writelines(map(_as_line, answers))
        target.flush()
        num_lines += len(lines)
        num_refused += len(lines) - len(texts)
    return num_lines, num_refused


def _as_line(answer: dict[str, Any]) -> bytes:
    return orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE)


def _gather(source: BinaryIO, max_bytes: int) -> Iterator[list[bytes]]:
    """Yield lists of lines of about `GATHERED_BYTES` together."""
    lines: list[bytes] = []
    num_bytes = 0
    for line in _lines(source, max_bytes):
        lines.append(line)
        num_bytes += len(line)
        if num_bytes >= GATHERED_BYTES or len(lines) >= GATHERED_LINES:
            yield lines
            lines, num_bytes = [], 0
    if lines:
        yield lines


def _lines(source: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """Yield lines without newlines; of a line that is too long only the first bytes.

    Raises:
        MalformedBody: the stream is in UTF-16 or UTF-32.
    """
    is_first = True
    # Room for a mark, CR and LF, and one byte by which a longer line is known.
    while raw := source.readline(max_bytes + len(BYTE_ORDER_MARK) + 3):
        rest = raw
        while not rest.endswith(b"\n") and (rest := source.readline(max_bytes)):
            pass
        if is_first:
            refuse_other_encodings(raw, "input")
            raw, is_first = raw.removeprefix(BYTE_ORDER_MARK), False
        yield raw.removesuffix(b"\n").removesuffix(b"\r") if raw.endswith(b"\n") else raw
