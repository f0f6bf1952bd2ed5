"""Accepts the batch of an upload: admission, binding to a model and counts, in one script."""

from dataclasses import dataclass, replace
from typing import Any

import redis

from contract import keys
from contract.api_keys import Quota
from contract.batches import Batch
from contract.errors import BrokerUnavailable
from contract.settings import Settings
from contract.store.admission.memory import MemorySampler
from contract.store.admission.outcomes import (
    IDEMPOTENCY_TTL_S,
    NO_ROOM,
    Idempotency,
    QuotaLeft,
    raise_refusal,
    replayed_id,
)
from contract.store.admission.submitting import quota_args, ttl_s
from contract.store.connection.scripts import register


@dataclass(frozen=True, slots=True)
class Accepted:
    """The batch that an upload became."""

    batch_id: str
    is_replay: bool = False
    """The Idempotency-Key was used before for the same upload, which `batch_id` names."""
    quota_left: QuotaLeft | None = None
    """None if the key has no quota."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a batch needs in all."""

    work_bytes: int
    """Bytes of work of all parts, which the limit of batches counts."""
    promised_bytes: int = 0
    """Room in Redis for the results of all parts."""


class BatchSealer:
    """Accepts batches or refuses them; Redis errors reach the caller."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._settings = settings
        self._memory = MemorySampler(client, settings)
        self._seal = register(client, "seal_batch")

    def seal(
        self, batch: Batch, sizes: Sizes, idempotency: Idempotency | None, quota: Quota
    ) -> Accepted:
        """See `BatchStore.accept`."""
        memory = self._memory.read()
        while True:
            verdict, *details = self._call(batch, sizes, idempotency, quota, memory.room_bytes)
            if verdict != b"rebind":
                break
            # Another model became current since the web server looked.
            name = batch.model_name or self._settings.served_name
            batch = replace(batch, model_name=name, fingerprint=details[0].decode())
        if verdict in NO_ROOM:
            self._memory.expire()
        raise_refusal(verdict, details, needed_bytes=sizes.promised_bytes, memory=memory)
        if verdict == b"replay":
            return Accepted(replayed_id(details[0], idempotency), is_replay=True)
        if verdict == b"lost":
            raise BrokerUnavailable("Redis has lost a part of the upload; send it again.")
        left = QuotaLeft(*map(int, details)) if details and quota.is_limited else None
        return Accepted(batch.id, quota_left=left)

    def _call(
        self,
        batch: Batch,
        sizes: Sizes,
        idempotency: Idempotency | None,
        quota: Quota,
        room_bytes: int,
    ) -> list[Any]:
        limits = self._settings
        answer = self._seal(
            keys=[
                keys.batch(batch.id),
                keys.batch_parts(batch.id),
                keys.batch_texts(batch.id),
                keys.LIVE_BATCHES,
                keys.UNPUBLISHED,
                keys.idempotency(idempotency.key_digest) if idempotency else "",
                keys.LIVE_LINES,
                keys.BULK_LOAD,
                keys.BATCH_CLIENTS,
                keys.BULK_CLIENTS,
                *keys.PROMISES,
                *(keys.MODELS, keys.FINGERPRINTS),
                keys.quota(quota.owner) if quota.is_limited else "",
                keys.STORED,
            ],
            args=[
                batch.id,
                batch.client,
                ttl_s(batch.deadline_at, limits),
                f"{batch.id}:{idempotency.request_digest}" if idempotency else "",
                IDEMPOTENCY_TTL_S,
                *(batch.num_parts, batch.total, sizes.work_bytes, sizes.promised_bytes),
                *(limits.max_queued_batches, limits.max_bulk_bytes, room_bytes),
                *quota_args(quota),
                batch.model_name or limits.served_name,
                *(batch.fingerprint, int(batch.is_pinned)),
                *(word for fact in _facts(batch).items() for word in fact),
            ],
        )
        return list(answer)


def _facts(batch: Batch) -> dict[str, str | int | float]:
    return {
        "total": batch.total,
        "num_bytes": batch.num_bytes,
        "num_parts": batch.num_parts,
        "num_published": 0,
        "created_at": batch.created_at,
        "deadline_at": batch.deadline_at,
        "client": batch.client,
        "fingerprint": batch.fingerprint,
        "model_name": batch.model_name,
        "is_pinned": int(batch.is_pinned),
    }
