"""Measures how many batches there are, and how much of Redis they use."""

from dataclasses import dataclass

import redis

from contract import keys
from contract.batches import Batch, decode_batch
from contract.settings import Settings


@dataclass(frozen=True, slots=True)
class BulkLoad:
    """The number and size of batches, and their limits."""

    num_bytes: int
    """Text bytes accepted and not ended."""
    redis_bytes: int
    """Memory that Redis uses, for everything."""
    max_redis_bytes: int
    """Above it no batch is accepted; at most nine tenths of Redis' own limit."""
    batches: list[Batch]
    """The batches that have not ended."""
    totals: dict[str, int]
    """Ended batches by status (`batches_completed`) and their lines by outcome, since the start."""

    @property
    def num_lines(self) -> int:
        """Lines accepted and not ended."""
        return sum(batch.total - batch.completed - batch.failed for batch in self.batches)


def read_load(client: redis.Redis, settings: Settings) -> BulkLoad:
    """Read the load from Redis, whose errors reach the caller."""
    with client.pipeline(transaction=False) as pipe:
        pipe.hgetall(keys.LIVE_BATCHES).hgetall(keys.BATCH_TOTALS).info("memory")
        live, totals, memory = pipe.execute()
        for batch_id in live:
            pipe.hgetall(keys.batch(batch_id.decode()))
        found = dict(zip(live, pipe.execute(), strict=True))
    # A batch that expired before a worker reached it is removed here: nobody else does it.
    gone = [batch_id for batch_id, facts in found.items() if not facts]
    if gone:
        client.hdel(keys.LIVE_BATCHES, *gone)
    limit = settings.max_redis_bytes
    if memory.get("maxmemory"):
        limit = min(limit, memory["maxmemory"] * 9 // 10)
    return BulkLoad(
        num_bytes=sum(int(live[batch_id]) for batch_id, facts in found.items() if facts),
        redis_bytes=memory["used_memory"],
        max_redis_bytes=limit,
        batches=[decode_batch(name.decode(), facts) for name, facts in found.items() if facts],
        totals={name.decode(): int(count) for name, count in totals.items()},
    )
