"""Makes the error for an ID under which nothing is stored."""

from contract.errors import JobGone, JobNotFound
from contract.task_ids import BATCH, FILE, TASK, is_task_id

_ROUTES = {TASK: "/score/{task_id}", BATCH: "/batches/{batch_id}", FILE: "/v1/files/{file_id}"}
_NAMES = {TASK: "job", BATCH: "batch", FILE: "file"}
_IDS = {TASK: "task ID", BATCH: "batch ID", FILE: "file ID"}


def absent(secret: bytes, asked: str, purpose: bytes, gone: str) -> JobGone | JobNotFound:
    """Return the error for `asked`, which was looked up as an ID of `purpose`.

    Args:
        secret: signs the IDs.
        gone: what to say if the ID was issued for this purpose.
    """
    if is_task_id(secret, asked, purpose):
        return JobGone(gone)
    # Where keys are needed, the web server refuses IDs of other owners before it looks here.
    for other, route in _ROUTES.items():
        if is_task_id(secret, asked, other):
            return JobNotFound(
                f"No {_NAMES[purpose]} has this ID. It is the ID of a {_NAMES[other]}; "
                f"use it at {route}."
            )
    return JobNotFound(f"This {_IDS[purpose]} was never issued; check it for typing errors.")
