"""A job costs Redis the same commands however many others are queued, and none is a long one."""

from collections import Counter

import pytest

from bench.depth import Depth, submit
from contract import keys

NUM_JOBS = 40
# Commands whose time grows with the size of their key. Each is used on small keys elsewhere.
LONG = {
    *("keys", "sort", "smembers", "hgetall", "hkeys", "hvals", "zrange"),
    *("lrange", "lrem", "linsert", "lpos", "ltrim"),
}


def commands(client) -> Counter[str]:
    """How often each command has run, those of scripts included."""
    found = client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): each["calls"] for name, each in found.items()})


def cost(client, settings, store) -> Counter[str]:
    """The commands of submitting, fetching, opening and ending some jobs."""
    depth = Depth(client, settings)
    before = commands(client)
    submit(store, NUM_JOBS)
    depth.take(NUM_JOBS)
    return commands(client) - before


def test_a_job_takes_the_same_commands_at_any_depth(redis_client, settings, job_store):
    # Scripts are loaded, and each client of the benchmark has a queue.
    submit(job_store, 200)
    cost(redis_client, settings, job_store)
    shallow = cost(redis_client, settings, job_store)
    submit(job_store, 1500)
    deep = cost(redis_client, settings, job_store)

    assert redis_client.hlen(keys.LIVE_JOBS) > 1600
    assert shallow["evalsha"] > NUM_JOBS
    assert not LONG & {name.partition("|")[0] for name in deep}
    for name in ("lpush", "hset", "set", "get", "hincrby", "del", "rpop"):
        assert deep[name] == pytest.approx(shallow[name], rel=0.2), name
