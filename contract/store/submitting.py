"""Submits jobs to Redis: admission, binding to a model and queueing, in one script."""

import time
from dataclasses import replace
from typing import Any

import redis

from contract import keys
from contract.api_keys import Quota
from contract.messages import Job, encode_payload, queued_record
from contract.queue_messages import task_message
from contract.settings import Settings
from contract.store.admission import (
    IDEMPOTENCY_TTL_S,
    Idempotency,
    KeyReused,
    NoRoom,
    QueueDepth,
    QueueFull,
    QuotaLeft,
    QuotaUsedUp,
    Receipt,
)
from contract.store.memory import Memory, MemorySampler
from contract.store.scripts import register
from contract.stored_results import promised_bytes


class JobSubmitter:
    """Accepts jobs or refuses them; Redis errors reach the caller."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._settings = settings
        self._memory = MemorySampler(client, settings)
        self._submit = register(client, "submit")

    def submit(
        self, task_id: str, job: Job, idempotency: Idempotency | None, quota: Quota
    ) -> Receipt:
        """See `JobStore.submit`; the depth in the receipt of a replay is (0, 0)."""
        memory, promised = self._memory.read(), promised_bytes(job.result_bytes)
        while True:
            payload = encode_payload(job)
            sizes = (job.num_bytes, promised, *self._limits(memory), *quota_args(quota))
            answer = self._call(task_id, job, payload, idempotency, quota, sizes)
            if answer[0] != b"rebind":
                break
            # Another model became current since the web server looked.
            name = job.model or self._settings.served_name
            job = replace(job, model=name, fingerprint=answer[1].decode())
        verdict = answer[0]
        if verdict in (b"no_room", b"room_share"):
            needed, is_share = promised + len(payload), verdict == b"room_share"
            raise NoRoom(needed, int(answer[1]), memory, is_share=is_share)
        if verdict == b"replay":
            return _replay(answer[1], idempotency)
        if verdict == b"quota":
            raise QuotaUsedUp(QuotaLeft(int(answer[1]), int(answer[2])), int(answer[3]))
        depth = QueueDepth(int(answer[1]), int(answer[2]))
        if verdict in (b"full", b"share"):
            raise QueueFull(depth, is_share=verdict == b"share")
        left = QuotaLeft(*map(int, answer[3:5])) if len(answer) > 3 and quota.is_limited else None
        return Receipt(task_id, depth, quota_left=left)

    def _limits(self, memory: Memory) -> tuple[int, int, int]:
        limits = self._settings
        return limits.max_queued_jobs, limits.max_queued_bytes, memory.room_bytes

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
        ttl_s = int(max(job.deadline_at - time.time(), 0)) + limits.result_ttl_s
        answer = self._submit(
            keys=[
                keys.record(task_id),
                keys.payload(task_id),
                keys.idempotency(idempotency.key_digest) if idempotency else "",
                keys.turns(job.fingerprint, job.priority),
                keys.waiting(job.fingerprint, job.priority),
                *keys.LIVE,
                *(keys.MODELS, keys.FINGERPRINTS),
                keys.quota(quota.owner) if quota.is_limited else "",
            ],
            args=[
                queued_record(task_id, job.facts()),
                payload,
                task_message(task_id, job.num_bytes, job.priority, job.fingerprint),
                task_id,
                job.client,
                ttl_s,
                f"{task_id}:{idempotency.request_digest}" if idempotency else "",
                IDEMPOTENCY_TTL_S,
                *sizes,
                *(job.model or limits.served_name, job.fingerprint, int(job.is_pinned)),
            ],
        )
        return list(answer)


def quota_args(quota: Quota) -> tuple[float, int, int]:
    """The share of the queue, and requests and bytes per minute, as the scripts take them."""
    return quota.queue_share, quota.requests_per_minute or 0, quota.bytes_per_minute or 0


def _replay(earlier: bytes, idempotency: Idempotency | None) -> Receipt:
    task_id, _, digest = earlier.decode().partition(":")
    if idempotency is None or digest != idempotency.request_digest:
        raise KeyReused
    return Receipt(task_id, QueueDepth(0, 0), is_replay=True)
