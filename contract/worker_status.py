"""What a worker tells of itself in Redis."""

from typing import Any

import orjson

from contract.store.job_store import JobStore


def worker_statuses(store: JobStore) -> list[dict[str, Any]]:
    """What each living worker tells of itself. Raises: BrokerUnavailable."""
    return [orjson.loads(status) for status in store.worker_status()]
