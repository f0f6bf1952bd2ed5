"""Stores a large result compressed and apart from its record, and reads it back piece by piece."""

from collections.abc import Callable, Iterator
from typing import IO, Any, cast

import orjson
import zstandard

from contract import keys
from contract.grammar.result_json import dump_result
from contract.messages import Apart, success_record

# A smaller result stays in its record: compressing it would cost more than it saves.
APART_BYTES = 8192
PIECE_BYTES = 64 * 1024
# The fastest level makes results 3.5 to 9 times smaller.
_LEVEL = 1
# One read from Redis.
_RANGE_BYTES = 256 * 1024

# A record of a job, its keys, and what Redis needs around them.
_RECORD_BYTES = 1024
# zstd stores a digit in at most 4 bits, and few numbers have the longest form. Measured on every
# output: at most 0.33 of the bound, which is that of `bytes` on random text.
STORED_SHARE = 1 / 2

ReadRange = Callable[[int, int], bytes]
"""Reads so many bytes of the stored result from an offset on; fewer at its end."""


def promised_bytes(result_bytes: int) -> int:
    """The most bytes of Redis that a result takes, with the record of its job.

    Args:
        result_bytes: the most bytes of its JSON, as `result_size.result_bytes` bounds them.
    """
    small = min(result_bytes, APART_BYTES)
    return _RECORD_BYTES + max(small, round(result_bytes * STORED_SHARE))


def encode_success(
    task_id: str, result: dict[str, Any], facts: dict[str, Any], finished_at: float
) -> tuple[bytes, bytes]:
    """The final record of a scored job, and its result as it is stored apart.

    The second is empty if the record holds the result.
    """
    text, num_errors = _result_json(result)
    if len(text) < APART_BYTES:
        return success_record(task_id, result, facts, finished_at), b""
    # Celery's clients get this in place of the result.
    place = {"stored_in": keys.result(task_id), "encoding": "zstd"}
    apart = Apart(len(text), num_errors)
    record = success_record(task_id, place, facts, finished_at, apart)
    return record, zstandard.compress(text, _LEVEL)


def decoded_pieces(read_range: ReadRange, range_bytes: int = _RANGE_BYTES) -> Iterator[bytes]:
    """The JSON of a result that is stored apart, in pieces of up to 64 KiB.

    Memory is bounded whatever the size of the result and however well it compresses. A result
    with `items` has each item in a line of its own.
    """
    source = cast("IO[bytes]", _Source(read_range))
    reader = zstandard.ZstdDecompressor().stream_reader(
        source, read_size=range_bytes, closefd=False
    )
    while piece := reader.read(PIECE_BYTES):
        yield piece


def load_item(line: bytes) -> dict[str, Any]:
    """Parse an item of a result, whose line ends in a comma unless it is the last one."""
    item: dict[str, Any] = orjson.loads(line.removesuffix(b","))
    return item


class _Source:
    """A stored result as zstandard reads files."""

    def __init__(self, read_range: ReadRange) -> None:
        self._read_range = read_range
        self._offset = 0

    def read(self, num_bytes: int) -> bytes:
        found = self._read_range(self._offset, num_bytes)
        self._offset += len(found)
        return found


def _result_json(result: dict[str, Any]) -> tuple[bytes, int]:
    """The JSON of a result and the number of its failed items; each item has its own line."""
    if "items" not in result:
        return dump_result(result), 0
    items = b",\n".join(map(dump_result, result["items"]))
    rest = dump_result({name: value for name, value in result.items() if name != "items"})
    ending = b"," + rest[1:] if len(rest) > 2 else b"}"
    num_errors = sum("error" in item for item in result["items"])
    return b'{"items":[\n' + items + b"\n]" + ending, num_errors
