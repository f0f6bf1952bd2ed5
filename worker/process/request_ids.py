"""Remembers which HTTP request sent each fetched job, so that all log lines of the job name it."""

from collections import OrderedDict
from typing import Any

# More than the jobs that one worker has in hand; lines after the end of a job need it too.
_MAX_JOBS = 8192


class RequestIds:
    """The request IDs of the jobs that were fetched last."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, str] = OrderedDict()

    def remember(self, task_id: str, request_id: str) -> None:
        """Note the request of a job; one without a request ID is passed over."""
        if not request_id:
            return
        self._found[task_id] = request_id
        self._found.move_to_end(task_id)
        if len(self._found) > _MAX_JOBS:
            self._found.popitem(last=False)

    def of(self, task_id: Any) -> str:
        """Return the request ID of a job; '' if it is unknown."""
        return self._found.get(task_id, "")
