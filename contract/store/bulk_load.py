"""What batches take up in Redis, and how many there are."""

from dataclasses import dataclass

import redis

from contract import keys
from contract.batches import Batch, decode_batch
from contract.settings import Settings


@dataclass(frozen=True, slots=True)
class BulkLoad:
    """What batches take up."""

    num_bytes: int
    """Text bytes accepted and not ended."""
    redis_bytes: int
    """Memory that Redis uses, for everything."""
    max_redis_bytes: int
    """Above which no batch is received; nine tenths of Redis' own limit if that is less."""
    batches: list[Batch]
    """Those that have not ended."""
    totals: dict[str, int]
    """Ended batches by status (`batches_completed`) and their lines by outcome, ever."""

    @property
    def num_lines(self) -> int:
        """Lines accepted and not ended."""
        return sum(batch.total - batch.completed - batch.failed for batch in self.batches)


def read_load(client: redis.Redis, settings: Settings) -> BulkLoad:
    """Ask Redis; its errors pass."""
    with client.pipeline(transaction=False) as pipe:
        pipe.hgetall(keys.LIVE_BATCHES).hgetall(keys.BATCH_TOTALS).info("memory")
        live, totals, memory = pipe.execute()
        for batch_id in live:
            pipe.hgetall(keys.batch(batch_id.decode()))
        found = dict(zip(live, pipe.execute(), strict=True))
    # One that expired before workers came to it has nobody else to take it off.
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
