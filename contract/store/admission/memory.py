"""Samples the memory of Redis for admission control."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from contract.settings import Settings

# A sample is used for this long.
SAMPLE_S = 1.0
# Before a job or a batch is refused for lack of room, memory is read again after this time. Sending
# a large result takes less.
LOOK_AGAIN_S = 0.05
# Admission counts on this share of Redis' own limit. The rest is for what is stored between two
# samples, and for what Redis needs besides, such as buffers of clients.
_SHARE = (9, 10)


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of Redis in bytes."""

    used_bytes: int
    startup_bytes: int
    """What it used when it had just started, without any key."""
    limit_bytes: int
    """Above it nothing is accepted; at most nine tenths of Redis' own limit."""

    rss_bytes: int = 0
    """What the operating system has given to it, fragmentation included."""
    maxmemory_bytes: int = 0
    """Redis' own limit; 0 without one."""
    evicts: bool = False
    """Whether Redis deletes keys when its own limit is reached: jobs and results among them."""

    @property
    def capacity_bytes(self) -> int:
        """What an empty Redis has room for."""
        return self.limit_bytes - self.startup_bytes

    @property
    def room_bytes(self) -> int:
        """What is left for promises; below 0 if more is used already."""
        return self.limit_bytes - self.used_bytes


def memory_of(info: Mapping[str, Any], settings: Settings) -> Memory:
    """The memory of Redis, from its answer to `INFO memory`."""
    limit_bytes = settings.max_redis_bytes
    if info.get("maxmemory"):
        limit_bytes = min(limit_bytes, info["maxmemory"] * _SHARE[0] // _SHARE[1])
    return Memory(
        info["used_memory"],
        info.get("used_memory_startup", 0),
        limit_bytes,
        rss_bytes=info.get("used_memory_rss", 0),
        maxmemory_bytes=info.get("maxmemory", 0),
        evicts=info.get("maxmemory_policy", "noeviction") != "noeviction",
    )


def maxmemory_for(limit_bytes: int) -> int:
    """The `maxmemory` at which admission can use `limit_bytes`."""
    return -(-limit_bytes * _SHARE[1] // _SHARE[0])


class MemorySampler:
    """The memory of Redis, up to `SAMPLE_S` old; Redis errors reach the caller."""

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._settings, self._clock = client, settings, clock
        self._sample: Memory | None = None
        self._until = self._sampled_at = 0.0

    def read(self) -> Memory:
        """The last sample, or a new one."""
        now = self._clock()
        if self._sample is None or now > self._until:
            # Those that ask meanwhile get the last sample, if there is one.
            self._until, self._sampled_at = now + SAMPLE_S, now
            try:
                self._sample = memory_of(self._client.info("memory"), self._settings)
            except redis.RedisError:
                self._until = 0.0
                raise
        return self._sample

    def expire(self) -> None:
        """Have a caller take a new sample once this one is `LOOK_AGAIN_S` old."""
        self._until = min(self._until, self._sampled_at + LOOK_AGAIN_S)
