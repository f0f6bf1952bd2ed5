"""Reads fetched messages, and sets aside what cannot be read, so that its neighbours are scored.

A broken message that still shows the ID of its job is replaced by a new one.
A message that only a newer release can read is parked for a worker of that release.
"""

import re
from typing import Any

import redis

from contract import keys
from contract.queue_messages import Claim, decode_message, message_fields, request_id_of
from contract.store.jobs.endings import Ending
from contract.store.jobs.job_store import JobStore
from contract.versions import NewerFormat, Unreadable
from worker.process.request_ids import RequestIds
from worker.scoring.outcomes import unreadable_ending

# A task ID, or that of a part; a message names its job five times.
_ID = re.compile(rb"(?<![a-z2-7])[a-z2-7]{32}(?:\.\d+)?")
_MAX_IDS = 8


class Intake:
    """The first look at what a worker has fetched; Redis errors reach Celery, which reconnects."""

    def __init__(
        self, client: redis.Redis, store: JobStore, worker: str, requests: RequestIds
    ) -> None:
        self._client, self._store, self._worker = client, store, worker
        self._requests = requests

    def read_message(self, tag: str, raw: bytes, is_express: bool) -> dict[str, Any] | None:
        """Read a message that was fetched under the delivery tag `tag`.

        Args:
            is_express: whether it goes first; its delivery info says so.

        Returns:
            The message for kombu and Celery, made new so that both can read all of it; None if it
            was set aside or parked.
        """
        try:
            claim = decode_message(raw)
            self._requests.remember(claim.task_id, claim.origin.request_id)
            return _message(claim, is_express=is_express)
        except NewerFormat as newer:
            self._store.park(tag, newer.major, self._worker)
        except Unreadable as error:
            self._set_aside(tag, raw, error)
        return None

    def _set_aside(self, tag: str, raw: bytes, error: Unreadable) -> None:
        is_job = error.reason != "not_a_job" and self._client.exists(keys.record(tag))
        task_id = tag if is_job else self._job_named_in(raw)
        self._requests.remember(task_id, request_id_of(raw))
        self._store.set_aside("message", error.reason, task_id=task_id, num_bytes=len(raw), raw=raw)
        if task_id and self._store.queue_again(task_id, tag, self._worker):
            return
        if task_id:
            self._store.conclude([self._unreadable(task_id)], self._worker)
        self._store.drop_message(tag, self._worker)

    def _job_named_in(self, raw: bytes) -> str:
        """The one live job whose ID a broken message still shows; '' if there is none."""
        shown = list(dict.fromkeys(_ID.findall(raw)))[:_MAX_IDS]
        ids = [task_id.decode() for task_id in shown]
        records = self._client.mget([keys.record(each) for each in ids]) if ids else []
        live = [each for each, record in zip(ids, records, strict=True) if record is not None]
        return live[0] if len(live) == 1 else ""

    def _unreadable(self, task_id: str) -> Ending:
        return unreadable_ending(task_id, self._store.facts(task_id))


def _message(claim: Claim, *, is_express: bool) -> dict[str, Any]:
    message = message_fields(
        claim.task_id, claim.num_bytes, claim.priority, claim.fingerprint, claim.origin
    )
    info = message["properties"]["delivery_info"]
    info["redelivered"], info["express"] = claim.is_redelivered, is_express
    return message
