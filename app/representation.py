"""A job's record as the API shows it."""

from datetime import UTC, datetime
from typing import Any

from app.errors import problem
from contract.messages import Record


def job_view(record: Record, root: str = "") -> dict[str, Any]:
    """The JSON object of a job.

    Args:
        root: path under which the application is mounted, '' for none.
    """
    # Empty where Celery itself wrote the record, as its `revoke` does.
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
    view["links"] = (
        {"self": path} if record.is_final else {"self": path, "cancel": f"{path}/cancel"}
    )
    return view


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
    """The result of `items`, where each failed one has its error in the form of all errors."""
    items = [
        {**item, "error": problem(item["error"])} if "error" in item else item
        for item in result["items"]
    ]
    return {**result, "items": items}
