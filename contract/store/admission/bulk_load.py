"""Measures how many batches there are, and how much of Redis they use.

The scripts that accept and end batches keep the sums, so that the cost does not grow with the
number of batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from contract import keys
from contract.settings import Settings
from contract.store.admission.memory import Memory, memory_of

LIVE_KEYS = (
    keys.LIVE_BATCHES,
    keys.LIVE_LINES,
    keys.BULK_LOAD,
    keys.UNPUBLISHED,
    keys.CANCELLING,
    keys.BATCH_CLIENTS,
    keys.BULK_CLIENTS,
    *keys.PROMISES,
    keys.FORGETTABLE_SINCE,
    keys.STORED,
    keys.batch(""),
)
# Live batches looked at in one round, for those that expired before a worker reached them.
_SAMPLE = 16


@dataclass(frozen=True, slots=True)
class BulkLoad:
    """The number and size of batches, and their limits."""

    num_bytes: int
    """Bytes of work accepted and not ended."""
    num_lines: int
    """Lines accepted and not ended."""
    promised_bytes: int
    """Room in Redis that is promised to the results of jobs and batches that have not ended."""
    memory: Memory
    statuses: dict[str, int]
    """Batches that have not ended, by status."""
    totals: dict[str, int]
    """Ended batches by status (`batches_completed`) and their lines by outcome, since the start."""

    @property
    def num_batches(self) -> int:
        """Batches that have not ended."""
        return sum(self.statuses.values())


def read_load(client: redis.Redis, settings: Settings, forget: Callable[..., Any]) -> BulkLoad:
    """Read the load from Redis, whose errors reach the caller.

    Args:
        forget: the script `forget_batches`.
    """
    _forget_expired(client, settings, forget)
    with client.pipeline(transaction=False) as pipe:
        pipe.hlen(keys.LIVE_BATCHES).scard(keys.UNPUBLISHED).scard(keys.CANCELLING)
        pipe.hgetall(keys.BULK_LOAD).hgetall(keys.BATCH_TOTALS)
        pipe.get(keys.LIVE_PROMISED).info("memory")
        num_live, num_unpublished, num_cancelling, load, totals, promised, info = pipe.execute()
    num_validating = min(num_unpublished, num_live - num_cancelling)
    return BulkLoad(
        num_bytes=max(int(load.get(b"bytes", 0)), 0),
        num_lines=max(int(load.get(b"lines", 0)), 0),
        promised_bytes=max(int(promised or 0), 0),
        memory=memory_of(info, settings),
        statuses={
            "validating": num_validating,
            "in_progress": num_live - num_cancelling - num_validating,
            "cancelling": num_cancelling,
        },
        totals={name.decode(): int(count) for name, count in totals.items()},
    )


def _forget_expired(client: redis.Redis, settings: Settings, forget: Callable[..., Any]) -> None:
    """Take expired batches off the live ones, by samples as Redis does with its own keys."""
    while sample := client.hrandfield(keys.LIVE_BATCHES, _SAMPLE):
        expired = _gone(client, sample)
        if expired:
            forget(keys=LIVE_KEYS, args=[settings.result_ttl_s, *expired])
        if len(expired) * 4 < _SAMPLE:
            return


def _gone(client: redis.Redis, batch_ids: Sequence[bytes]) -> list[bytes]:
    with client.pipeline(transaction=False) as pipe:
        for batch_id in batch_ids:
            pipe.exists(keys.batch(batch_id.decode()))
        found = pipe.execute()
    return [batch_id for batch_id, exists in zip(batch_ids, found, strict=True) if not exists]
