"""Reads fetched messages, and sets aside what cannot be read, so that its neighbours are scored.

A message that only a newer release can read is parked for a worker of that release.
"""

from typing import Any

import redis

from contract import keys
from contract.errors import JobUnreadable
from contract.queue_messages import Claim, decode_message, message_fields
from contract.store.endings import Ending
from contract.store.job_store import JobStore
from contract.versions import NewerFormat, Unreadable
from worker.outcomes import lost_ending


class Intake:
    """The first look at what a worker has fetched; Redis errors reach Celery, which reconnects."""

    def __init__(self, client: redis.Redis, store: JobStore, worker: str) -> None:
        self._client, self._store, self._worker = client, store, worker

    def read_message(self, tag: str, raw: bytes, is_express: bool) -> dict[str, Any] | None:
        """Read a message that was fetched under the delivery tag `tag`.

        Args:
            is_express: whether it goes first; its delivery info says so.

        Returns:
            The message for kombu and Celery, made new so that both can read all of it; None if it
            was set aside or parked.
        """
        try:
            return _message(decode_message(raw), is_express=is_express)
        except NewerFormat as newer:
            self._store.park(tag, newer.major, self._worker)
        except Unreadable as error:
            self._set_aside(tag, raw, error)
        return None

    def _set_aside(self, tag: str, raw: bytes, error: Unreadable) -> None:
        is_job = error.reason != "not_a_job" and self._client.exists(keys.record(tag))
        task_id = tag if is_job else ""
        self._store.set_aside("message", error.reason, task_id=task_id, num_bytes=len(raw), raw=raw)
        if is_job:
            self._store.conclude([self._unreadable(tag)], self._worker)
        self._store.drop_message(tag, self._worker)

    def _unreadable(self, task_id: str) -> Ending:
        return unreadable_ending(task_id, self._store.facts(task_id))


def unreadable_ending(task_id: str, facts: dict[str, Any]) -> Ending:
    """Return the end of a job whose stored data cannot be read."""
    error = JobUnreadable("What is stored of the job cannot be read; send it again.")
    return lost_ending(task_id, facts, error)


def _message(claim: Claim, *, is_express: bool) -> dict[str, Any]:
    message = message_fields(claim.task_id, claim.num_bytes, claim.priority, claim.fingerprint)
    info = message["properties"]["delivery_info"]
    info["redelivered"], info["express"] = claim.is_redelivered, is_express
    return message
