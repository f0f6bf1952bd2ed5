"""Samples the memory of each process and of Redis, and fits how fast each grows."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

import psutil
import redis

_MIB = 2**20
_HOUR_S = 3600.0


class Point(NamedTuple):
    """One value at one time."""

    at: float
    """Monotonic time, seconds."""
    value: float


class Growth(NamedTuple):
    """How a value changed over a time."""

    first: float
    last: float
    largest: float
    per_hour: float
    """Slope of the line through all points (least squares)."""


class Memory:
    """Samples every few seconds from `start` to `stop`."""

    def __init__(
        self,
        find: Callable[[], Mapping[str, psutil.Process]],
        connect: Callable[[], redis.Redis],
        every_s: float = 5.0,
    ) -> None:
        """Prepare.

        Args:
            find: returns the processes by name, as they are now.
            connect: connects to their Redis.
            every_s: seconds between two samples.
        """
        self._find, self._connect, self._every_s = find, connect, every_s
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.points: dict[str, list[Point]] = {}
        """By name: resident MiB, descriptors and threads of processes, and what Redis uses."""

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ending.set()
        self._thread.join()

    def growth(self, name: str, since: float, until: float) -> Growth | None:
        """How a value changed between two times; None without two samples in between."""
        points = [each for each in self.points.get(name, []) if since <= each.at <= until]
        if len(points) < 2:
            return None
        values = [each.value for each in points]
        return Growth(values[0], values[-1], max(values), slope(points) * _HOUR_S)

    def largest_by_part(
        self, name: str, since: float, until: float, parts: int
    ) -> list[float | None]:
        """The largest value in each of some equal parts of a time; None for one without sample."""
        found: list[float | None] = [None] * parts
        for at, value in self.points.get(name, []):
            if since <= at <= until:
                part = min(int((at - since) / (until - since) * parts), parts - 1)
                found[part] = max(round(value, 1), found[part] or 0.0)
        return found

    def _run(self) -> None:
        with self._connect() as server:
            while not self._ending.wait(self._every_s):
                self._sample(server)

    def _sample(self, server: redis.Redis) -> None:
        try:
            processes = self._find()
        except (psutil.NoSuchProcess, TimeoutError):
            # A part of the service is being started again.
            return
        now = time.monotonic()
        for name, process in processes.items():
            with suppress(psutil.NoSuchProcess):
                self._add(f"{name}_rss_mib", now, process.memory_info().rss / _MIB)
                self._add(f"{name}_descriptors", now, process.num_fds())
                self._add(f"{name}_threads", now, process.num_threads())
        with suppress(redis.RedisError):
            self._add("redis_used_mib", now, server.info("memory")["used_memory"] / _MIB)
            self._add("redis_keys", now, server.dbsize())

    def _add(self, name: str, at: float, value: float) -> None:
        self.points.setdefault(name, []).append(Point(at, value))


def slope(points: list[Point]) -> float:
    """The slope of the line through points (least squares), per second."""
    mean_at = sum(each.at for each in points) / len(points)
    mean_value = sum(each.value for each in points) / len(points)
    spread = sum((each.at - mean_at) ** 2 for each in points)
    shared = sum((each.at - mean_at) * (each.value - mean_value) for each in points)
    return shared / spread if spread else 0.0
