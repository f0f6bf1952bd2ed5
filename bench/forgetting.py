"""Measures what a rewrite of the append-only file costs while Redis serves: time, waits, memory.

Redis holds compressed results, so a rewrite cannot make the file smaller. One client writes all the
time, as workers do. The waits of its writes are compared with those of a quiet time before.
"""

import argparse
import random
import time
from collections.abc import Callable

import redis

from bench.own_redis import own_redis
from bench.results import Results

VALUE_BYTES = 20_000
QUIET_S = 10.0


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=2_000, help="results that Redis holds")
    options = parser.parse_args()
    setup = {"megabytes": options.megabytes, "value": VALUE_BYTES}
    with (
        Results("forgetting", setup) as results,
        own_redis() as url,
        redis.Redis.from_url(url) as client,
    ):
        results.step(f"write {options.megabytes:,} MB")
        _fill(client, options.megabytes * 1_000_000)
        results.step("rewrite the file")
        results.put(_measure(client), is_printed=False)


def _measure(client: redis.Redis) -> dict[str, float]:
    quiet_until = time.monotonic() + QUIET_S
    quiet = _waits_ms(client, lambda: time.monotonic() < quiet_until)
    began = time.monotonic()
    client.bgrewriteaof()
    waits = _waits_ms(client, lambda: _is_rewriting(client))
    took_s = time.monotonic() - began
    persistence = client.info("persistence")
    return {
        "rewrite_s": round(took_s, 1),
        "file_mb": round(persistence["aof_base_size"] / 1e6),
        "fork_ms": round(client.info("stats")["latest_fork_usec"] / 1e3, 1),
        "memory_copied_mb": round(persistence["aof_last_cow_size"] / 1e6, 1),
        **_figures("quiet", quiet),
        **_figures("rewriting", waits),
    }


def _fill(client: redis.Redis, num_bytes: int) -> None:
    generator = random.Random(0)
    for first in range(0, num_bytes // VALUE_BYTES, 100):
        with client.pipeline(transaction=False) as pipe:
            for number in range(first, first + 100):
                pipe.set(f"result:{number}", generator.randbytes(VALUE_BYTES), ex=86_400)
            pipe.execute()


def _waits_ms(client: redis.Redis, goes_on: Callable[[], bool]) -> list[float]:
    """Write every 5 ms, one result in four; return the time of each write in ms."""
    generator = random.Random(1)
    waits: list[float] = []
    while goes_on():
        value = generator.randbytes(VALUE_BYTES if len(waits) % 4 == 0 else 200)
        began = time.perf_counter()
        client.set(f"new:{len(waits) % 1000}", value)
        waits.append(1e3 * (time.perf_counter() - began))
        time.sleep(0.005)
    return sorted(waits)


def _is_rewriting(client: redis.Redis) -> bool:
    found = client.info("persistence")
    return bool(found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"])


def _figures(when: str, waits: list[float]) -> dict[str, float]:
    return {
        f"write_{when}_p50_ms": round(waits[len(waits) // 2], 2),
        f"write_{when}_p99_ms": round(waits[len(waits) * 99 // 100], 2),
        f"write_{when}_max_ms": round(waits[-1], 1),
    }


if __name__ == "__main__":
    main()
