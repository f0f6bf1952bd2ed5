"""Measures how many batches there are, and how much of Redis they use.

The scripts that accept and end batches keep the sums, so that the cost does not grow with the
number of batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from contract import keys
from contract.settings import Settings
from contract.store.admission.memory import Memory, memory_of
from contract.store.connection.readings import Reading
from contract.store.connection.scripts import script_command

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
# What `_load` reads, in its order.
_SUMS = (
    ("HLEN", keys.LIVE_BATCHES),
    ("SCARD", keys.UNPUBLISHED),
    ("SCARD", keys.CANCELLING),
    ("HGETALL", keys.BULK_LOAD),
    ("HGETALL", keys.BATCH_TOTALS),
    ("GET", keys.LIVE_PROMISED),
    ("INFO", "memory"),
)


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


def ask_load(settings: Settings) -> Reading[BulkLoad]:
    """The load; batches that expired are taken off by samples, as Redis does with its own keys."""
    is_sampled = False
    while not is_sampled:
        (sample,) = yield [("HRANDFIELD", keys.LIVE_BATCHES, _SAMPLE)]
        lookups = [("EXISTS", keys.batch(batch_id.decode())) for batch_id in sample]
        answers = yield [*lookups, *_SUMS]
        exist, sums = answers[: len(sample)], answers[len(sample) :]
        expired = [batch_id for batch_id, exists in zip(sample, exist, strict=True) if not exists]
        if expired:
            args = settings.result_ttl_s, *expired
            forgetting = script_command("forget_batches", LIVE_KEYS, args)
            try:
                _, *sums = yield [forgetting, *_SUMS]
            except redis.ResponseError:
                # Redis takes no writes. With the expired batches, the sums are a little too high.
                break
        is_sampled = len(expired) * 4 < _SAMPLE
    return _load(sums, settings)


def _load(sums: Sequence[Any], settings: Settings) -> BulkLoad:
    num_live, num_unpublished, num_cancelling, load, totals, promised, info = sums
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
