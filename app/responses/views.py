"""Makes the JSON of jobs, batches and result lines."""

from datetime import UTC, datetime
from typing import Any

import orjson

from app.responses.problems import problem
from contract.batches import Batch, is_success_line
from contract.messages import Record


def job_view(record: Record, root: str = "") -> dict[str, Any]:
    """The JSON object of a job.

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
    elif record.state == "SUCCESS":
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


def result_line(line: bytes) -> bytes:
    """A result line as the API shows it, with its error as a problem object."""
    if is_success_line(line):
        return line
    result = orjson.loads(line)
    result["error"] = problem(result["error"])
    return orjson.dumps(result, option=orjson.OPT_APPEND_NEWLINE)


def job_path(task_id: str, root: str) -> str:
    """Path of a job's resource."""
    return f"{root}/score/{task_id}"


def rfc3339(unix_time: float | None) -> str | None:
    """A time in UTC to the millisecond, such as 2026-01-31T12:00:00.000Z."""
    if unix_time is None:
        return None
    moment = datetime.fromtimestamp(unix_time, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _with_problems(result: dict[str, Any]) -> dict[str, Any]:
    """The result of `items`, with the error of each failed item as a problem object."""
    items = [
        {**item, "error": problem(item["error"])} if "error" in item else item
        for item in result["items"]
    ]
    return {**result, "items": items}
