"""Submits jobs to Redis: admission, binding to a model and queueing, in one script."""

from dataclasses import replace
from typing import Any

import redis

from contract import keys
from contract.api_keys import Quota
from contract.messages import Job, encode_payload, queued_record
from contract.queue_messages import origin_of, task_message
from contract.service_clock import CLOCK
from contract.settings import Settings
from contract.store.admission.memory import Memory, MemorySampler
from contract.store.admission.outcomes import (
    IDEMPOTENCY_TTL_S,
    NO_ROOM,
    Idempotency,
    QueueDepth,
    QuotaLeft,
    Receipt,
    raise_refusal,
    replayed_id,
)
from contract.store.connection.script_runner import ScriptRunner
from contract.store.connection.scripts import register
from contract.stored_results import promised_bytes


class JobSubmitter:
    """Accepts jobs or refuses them; Redis errors reach the caller."""

    def __init__(self, client: redis.Redis, scripts: ScriptRunner, settings: Settings) -> None:
        self._scripts, self._settings = scripts, settings
        self._memory = MemorySampler(client, settings)
        self._submit = register(client, "submit")

    def submit(
        self, task_id: str, job: Job, idempotency: Idempotency | None, quota: Quota
    ) -> Receipt:
        """See `JobStore.submit`; the depth in the receipt of a replay is (0, 0)."""
        memory, promised = self._memory.read(), promised_bytes(job.result_bytes)
        while True:
            payload = encode_payload(job)
            sizes = (job.work_bytes, promised, *self._limits(memory), *quota_args(quota))
            answer = self._call(task_id, job, payload, idempotency, quota, sizes)
            if answer[0] != b"rebind":
                break
            # Another model became current since the web server looked.
            name = job.model or self._settings.served_name
            job = replace(job, model=name, fingerprint=answer[1].decode())
        verdict, *details = answer
        if verdict in NO_ROOM:
            self._memory.expire()
        raise_refusal(verdict, details, needed_bytes=promised + len(payload), memory=memory)
        if verdict == b"replay":
            earlier = replayed_id(details[0], idempotency)
            return Receipt(earlier, QueueDepth(0, 0), is_replay=True)
        depth = QueueDepth(*map(int, details[:2]))
        left = QuotaLeft(*map(int, details[2:])) if details[2:] and quota.is_limited else None
        return Receipt(task_id, depth, quota_left=left)

    def _limits(self, memory: Memory) -> tuple[int, int, int, int]:
        limits = self._settings
        room = memory.room_bytes, memory.used_bytes
        return limits.max_queued_jobs, limits.max_queued_bytes, *room

    def _call(
        self,
        task_id: str,
        job: Job,
        payload: bytes,
        idempotency: Idempotency | None,
        quota: Quota,
        sizes: tuple[float, ...],
    ) -> list[Any]:
        limits = self._settings
        names = [
            keys.record(task_id),
            keys.payload(task_id),
            keys.idempotency(idempotency.key_digest) if idempotency else "",
            keys.turns(job.fingerprint, job.priority),
            keys.waiting(job.fingerprint, job.priority),
            *keys.LIVE,
            *(keys.MODELS, keys.FINGERPRINTS),
            keys.quota(quota.owner) if quota.is_limited else "",
            keys.STORED,
        ]
        args = [
            queued_record(task_id, job.facts()),
            payload,
            task_message(task_id, job.work_bytes, job.priority, job.fingerprint, origin_of(job)),
            task_id,
            job.client,
            ttl_s(job.deadline_at, limits),
            f"{task_id}:{idempotency.request_digest}" if idempotency else "",
            IDEMPOTENCY_TTL_S,
            *sizes,
            *(job.model or limits.served_name, job.fingerprint, int(job.is_pinned)),
        ]
        return list(self._scripts.run(self._submit, names, args))


def ttl_s(deadline_at: float, settings: Settings) -> int:
    """How long Redis keeps the keys of a job or batch that has not ended, in seconds.

    Args:
        deadline_at: Unix time, seconds.
    """
    return int(max(deadline_at - CLOCK.now(), 0)) + settings.result_ttl_s


def quota_args(quota: Quota) -> tuple[float, int, int]:
    """The share of the queue, and requests and bytes per minute, as the scripts take them."""
    return quota.queue_share, quota.requests_per_minute or 0, quota.bytes_per_minute or 0
