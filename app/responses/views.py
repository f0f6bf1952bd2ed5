"""Makes the JSON of jobs, batches and result lines."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson

from app.responses.problems import problem
from contract.batches import Batch, is_success_line
from contract.messages import Record

# The beginning of a failed item as orjson writes it, and a size that it cannot exceed: a
# `custom_id` has at most 128 characters, and each takes at most 6 bytes.
_ERROR_ITEM = re.compile(rb'\{(?:"custom_id":"(?:[^"\\]|\\.)*",)?"error":')
_KIND_SHOWS_BYTES = 1024


def job_view(record: Record, root: str = "") -> dict[str, Any]:
    """The JSON object of a job, without a result that is stored apart from its record.

    Args:
        root: path under which the application is mounted, '' for none.
    """
    # Empty if Celery itself wrote the record, as its `revoke` does.
    job = record.job
    view: dict[str, Any] = {
        "id": record.task_id,
        "state": record.state,
        "submitted_at": rfc3339(job.get("submitted_at")),
        "deadline_at": rfc3339(job.get("deadline_at")),
        "finished_at": rfc3339(record.finished_at),
        "num_texts": job.get("num_texts"),
        "num_bytes": job.get("num_bytes"),
    }
    if record.error is not None:
        view["error"] = problem(record.error)
    elif record.state == "SUCCESS" and record.apart is None:
        view["result"] = (
            record.result if job.get("is_single", True) else _with_problems(record.result)
        )
    path = job_path(record.task_id, root)
    view["links"] = {"self": path, "events": f"{path}/events"}
    if not record.is_final:
        view["links"]["cancel"] = f"{path}/cancel"
    return view


def batch_view(batch: Batch, root: str = "") -> dict[str, Any]:
    """The JSON object of a batch; `root` as for `job_view`."""
    path = batch_path(batch.id, root)
    links = {"self": path, "results": f"{path}/results", "events": f"{path}/events"}
    if not batch.is_final:
        links["cancel"] = f"{path}/cancel"
    return {
        "id": batch.id,
        "object": "batch",
        "status": batch.status,
        "created_at": rfc3339(batch.created_at),
        "deadline_at": rfc3339(batch.deadline_at),
        "in_progress_at": rfc3339(batch.in_progress_at),
        "cancelling_at": rfc3339(batch.cancelling_at),
        "completed_at": rfc3339(batch.ended_at),
        "expires_at": rfc3339(batch.expires_at),
        "request_counts": {
            "total": batch.total,
            "completed": batch.completed,
            "failed": batch.failed,
        },
        "num_bytes": batch.num_bytes,
        "model": batch.model,
        "links": links,
    }


def batch_path(batch_id: str, root: str) -> str:
    """Path of a batch's resource."""
    return f"{root}/batches/{batch_id}"


def with_problems(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces of a stored result, with the error of each failed item as a problem object.

    Each item has a line of its own.
    """
    return _converted(pieces, lambda line: _ERROR_ITEM.match(line) is None, _failed_item)


def result_lines(
    pieces: Iterable[bytes], start: int = 0, stop: int = sys.maxsize
) -> Iterator[bytes]:
    """The result lines of a part from `start` to `stop - 1`, with errors as problem objects."""
    return _converted(pieces, is_success_line, _failed_line, start, stop)


def error_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The result lines of a part that hold errors, as problem objects."""
    return _converted(pieces, is_success_line, _failed_line, has_kept=False)


def _converted(
    pieces: Iterable[bytes],
    is_kept: Callable[[bytes], bool],
    convert: Callable[[bytes], bytes],
    start: int = 0,
    stop: int = sys.maxsize,
    *,
    has_kept: bool = True,
) -> Iterator[bytes]:
    """Lines of a stream, those that are not kept converted; the others only if `has_kept`.

    Of a line that is kept no more is held than shows that it is: results may be large.
    """
    number, line, is_passed_on = 0, b"", False
    for piece in pieces:
        ready = []
        for text in piece.splitlines(keepends=True):
            is_ended = text.endswith(b"\n")
            if start <= number < stop:
                line += text
                is_known = is_ended or len(line) >= _KIND_SHOWS_BYTES
                if is_passed_on or (is_known and is_kept(line)):
                    ready += [line] * has_kept
                    line, is_passed_on = b"", not is_ended
                elif is_ended:
                    ready.append(convert(line))
                    line = b""
            number += is_ended
        yield b"".join(ready)
        if number >= stop:
            return
    yield line


def job_path(task_id: str, root: str) -> str:
    """Path of a job's resource."""
    return f"{root}/score/{task_id}"


def rfc3339(unix_time: float | None) -> str | None:
    """A time in UTC to the millisecond, such as 2026-01-31T12:00:00.000Z."""
    if unix_time is None:
        return None
    moment = datetime.fromtimestamp(unix_time, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _failed_item(line: bytes) -> bytes:
    text = line.rstrip(b",\n")
    item = orjson.loads(text)
    item["error"] = problem(item["error"])
    return orjson.dumps(item) + line[len(text) :]


def _failed_line(line: bytes) -> bytes:
    result = orjson.loads(line)
    result["error"] = problem(result["error"])
    return orjson.dumps(result, option=orjson.OPT_APPEND_NEWLINE)


def _with_problems(result: dict[str, Any]) -> dict[str, Any]:
    """The result of `items`, with the error of each failed item as a problem object."""
    items = [
        {**item, "error": problem(item["error"])} if "error" in item else item
        for item in result["items"]
    ]
    return {**result, "items": items}
