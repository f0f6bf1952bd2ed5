"""Measures what a job costs Redis and the web server while 1,000 to 1,000,000 others are queued.

    python -m bench.depth [--depths 1000 10000 100000 1000000] [--jobs 1000] [--rounds 3]

A cost per job that is flat says that no script looks at the whole queue. Two servers take turns, so
that other programs slow down both: one keeps the smallest depth, and the other one is filled
further and further. In each round the same number of jobs is posted over HTTP, and then fetched,
opened and ended as a worker does, so that the depth is the same again. Both queues keep the same
100 clients. `ratio` is that of the deep queue to the shallow one, the median of the rounds.
`us_per_job` is the sum of all steps. Redis syncs its file at each write, but not while a queue is
filled. It does not rewrite its file, so that no rewrite falls into a measurement.
"""

import argparse
import asyncio
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from operator import sub
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import orjson
import psutil
import redis

from bench.own_redis import own_redis
from bench.peers.load import Connection
from bench.peers.process_use import cpu_s
from bench.results import Results
from bench.texts import make_texts
from contract import keys
from contract.messages import Job, success_record
from contract.setting_refusals import environment_name
from contract.settings import Settings, load_settings
from contract.store.connection.broker import connect
from contract.store.connection.scripts import register
from contract.store.jobs.endings import Ending
from contract.store.jobs.job_store import JobStore
from contract.store.jobs.opening import Opened
from tests.web import WebServer
from worker.queue import transport
from worker.scheduling.filling import Budget
from worker.scheduling.room import fetch_arguments, room_for_fetch

DEPTHS = (1_000, 10_000, 100_000, 1_000_000)
NUM_CLIENTS = 100
DEADLINE_S = 6 * 3600.0
WORKER = "bench"
_NUM_FILLERS, _NUM_POSTERS = 16, 4
_FILL_GROUP = 20_000
_NUM_TEXTS = 500
_RESULT = {"log_likelihood_nats": -100.0, "num_bytes": 100}
_LOOKS = ("stats", "metrics")
_NUM_LOOKS = 20
_WARM_UP_JOBS = 100


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", nargs="+", type=int, default=list(DEPTHS))
    parser.add_argument("--jobs", type=int, default=1_000, help="jobs of each round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds at each depth")
    parser.add_argument(
        "--limit-s", type=float, default=math.inf, help="stop after this many seconds"
    )
    options = parser.parse_args()
    setup = {"jobs_of_each_round": options.jobs, "rounds": options.rounds, "clients": NUM_CLIENTS}
    depths, limits = sorted(options.depths), _room_for(max(options.depths) + options.jobs)
    with (
        Results("depth", setup, limit_s=options.limit_s) as results,
        _queue(limits) as shallow,
        _queue(limits) as deep,
    ):
        results.step(f"fill a queue to {depths[0]:,} jobs")
        shallow.fill(depths[0])
        empty_bytes, filled = deep.used_bytes(), 0
        for number in depths:
            results.step(f"fill the other queue to {number:,} jobs")
            for first in range(filled, number, _FILL_GROUP):
                deep.fill(min(number - first, _FILL_GROUP))
                results.step(f"{deep.num_jobs():,} jobs")
            filled = number
            bytes_each = (deep.used_bytes() - empty_bytes) / number
            results.put({f"queued_{number}_redis_bytes_per_text": round(bytes_each)})
            rounds = []
            for done in range(options.rounds):
                results.step(f"round {done + 1} of {options.rounds}")
                rounds.append((shallow.measure(options.jobs), deep.measure(options.jobs)))
                found = _compared(rounds)
                results.put(
                    {f"queued_{number}_{name}": each for name, each in found.items()},
                    is_printed=done + 1 == options.rounds,
                )


def _compared(rounds: Sequence[tuple[dict[str, float], dict[str, float]]]) -> dict[str, float]:
    """The median of each figure of the deep queue, and of its ratio to the shallow one."""
    figures = {}
    for name in rounds[0][0]:
        figures[name] = round(median(deep[name] for _, deep in rounds), 2)
        ratio = median(deep[name] / shallow[name] for shallow, deep in rounds)
        figures[f"{name}_ratio"] = round(ratio, 2)
    return figures


@contextmanager
def _queue(limits: Mapping[str, Any]) -> Iterator["Depth"]:
    """An empty queue in a Redis of its own, with a web server."""
    with own_redis() as url, tempfile.TemporaryDirectory() as folder:
        given = {"redis_url": url, **limits}
        settings = load_settings({environment_name(n): str(v) for n, v in given.items()})
        web = WebServer(Path(folder), url, **limits).start()
        try:
            with connect(settings) as client:
                client.config_set("auto-aof-rewrite-percentage", 0)
                depth = Depth(client, settings, web)
                # First requests and first calls of scripts cost more.
                depth.measure(_WARM_UP_JOBS)
                yield depth
        finally:
            web.stop()


class Depth:
    """A queue, and what a job costs in it."""

    def __init__(
        self, client: redis.Redis, settings: Settings, web: WebServer | None = None
    ) -> None:
        """Measure the jobs in the Redis of `client`; only posting needs a web server."""
        self._client, self._settings, self._web = client, settings, web
        self._store = JobStore(client, settings)
        self._fetch = register(client, "fetch", transport.SCRIPTS)

    def num_jobs(self) -> int:
        """Jobs that have not ended."""
        return int(self._client.hlen(keys.LIVE_JOBS))

    def used_bytes(self) -> int:
        """Memory that Redis uses."""
        return int(self._client.info("memory")["used_memory"])

    def fill(self, num_jobs: int) -> None:
        """Queue jobs of many clients without syncing the file at each of them."""
        self._client.config_set("appendfsync", "no")
        submit(self._store, num_jobs)
        self._client.config_set("appendfsync", "always")

    def measure(self, num_jobs: int) -> dict[str, float]:
        """Costs of posting and of scoring `num_jobs`, and of a look at the queue."""
        assert self._web is not None
        web_s, post_s = self.post(num_jobs)
        posting = {"web_us_per_post": web_s / num_jobs, "redis_us_per_post": post_s / num_jobs}
        costs_s = {**posting, **self.take(num_jobs)}
        costs_s["us_per_job"] = sum(costs_s.values())
        figures = {name: round(used_s * 1e6, 1) for name, used_s in costs_s.items()}
        for path in _LOOKS:
            figures[f"redis_us_per_{path}"] = round(self._look_s(path) * 1e6, 1)
        return figures

    def _look_s(self, path: str) -> float:
        """CPU seconds of Redis for one look at the state of the queue."""
        assert self._web is not None
        before_s = self._redis_s()
        for _ in range(_NUM_LOOKS):
            httpx.get(f"{self._web.url}/{path}", timeout=60).raise_for_status()
        return (self._redis_s() - before_s) / _NUM_LOOKS

    def post(self, num_jobs: int) -> tuple[float, float]:
        """Post jobs over HTTP; CPU seconds of the web server and of Redis."""
        assert self._web is not None
        assert self._web.process is not None
        web = psutil.Process(self._web.process.pid)
        before_s = cpu_s(web), self._redis_s()
        asyncio.run(_post(self._web.port, make_texts(num_jobs)))
        return cpu_s(web) - before_s[0], self._redis_s() - before_s[1]

    def take(self, num_jobs: int) -> dict[str, float]:
        """Fetch, open and end jobs as an idle worker does; CPU seconds of Redis per job."""
        used_s, num_taken = [0.0, 0.0, 0.0], 0
        while num_taken < num_jobs:
            at_s = [self._redis_s()]
            task_ids = [tag.decode() for tag in self._fetch_once(num_jobs - num_taken)[1::3]]
            if not task_ids:
                raise RuntimeError(f"the queue has no job after {num_taken} of {num_jobs}")
            at_s.append(self._redis_s())
            opened = self._store.open_jobs(task_ids, WORKER)
            at_s.append(self._redis_s())
            self._store.conclude([_ending(each) for each in opened], worker=WORKER)
            at_s.append(self._redis_s())
            used_s = [sum(each) for each in zip(used_s, map(sub, at_s[1:], at_s), strict=True)]
            # What has ended must not count as memory of the next depth.
            self._client.delete(*map(keys.record, task_ids))
            num_taken += len(task_ids)
        names = (f"redis_us_per_{step}" for step in ("fetch", "open", "end"))
        return {name: each_s / num_taken for name, each_s in zip(names, used_s, strict=True)}

    def _fetch_once(self, num_jobs: int) -> list[bytes]:
        """Fetch what one micro-batch takes, and hardly more than `num_jobs`."""
        budget = Budget.of(self._settings)
        # As many express jobs may come besides.
        at_most = max(min(budget.slices, num_jobs // 2), 1)
        room = room_for_fetch((), replace(budget, slices=at_most))
        worker = keys.unacked(WORKER), keys.unacked_index(WORKER)
        names, args = fetch_arguments(keys.UNBOUND, room, worker, time.time())
        found: list[bytes] = self._fetch(keys=names, args=args)
        return found

    def _redis_s(self) -> float:
        """CPU time of the main thread of Redis since its start, seconds."""
        used = self._client.info("cpu")
        return float(used["used_cpu_user_main_thread"] + used["used_cpu_sys_main_thread"])


def submit(store: JobStore, num_jobs: int) -> None:
    """Queue jobs of many clients, several at once: one would mostly wait for Redis."""
    texts, now = make_texts(_NUM_TEXTS), time.time()

    def submit_one(number: int) -> None:
        text, client = texts[number % len(texts)], _client(number)
        store.submit(Job([{"text": text}], len(text), now, now + DEADLINE_S, client=client))

    with ThreadPoolExecutor(_NUM_FILLERS) as pool:
        for _ in pool.map(submit_one, range(num_jobs)):
            pass


def _client(number: int) -> str:
    return f"192.0.2.{number % NUM_CLIENTS}"


def _ending(opened: Opened) -> Ending:
    assert opened.job is not None
    record = success_record(opened.task_id, _RESULT, opened.job.facts(), time.time())
    return Ending(opened.task_id, record)


async def _post(port: int, texts: Sequence[str]) -> None:
    """Post texts of as many clients as in the queue, without waiting for their scores."""
    left = iter(enumerate(texts))

    async def post_some() -> None:
        async with Connection(port) as connection:
            for number, text in left:
                body, client = orjson.dumps({"text": text}), _client(number)
                status, answer = await connection.ask("POST", "/score?wait=0", body, client)
                if status != 202:
                    raise RuntimeError(f"status {status} in place of 202: {answer}")

    async with asyncio.TaskGroup() as group:
        for _ in range(_NUM_POSTERS):
            group.create_task(post_some())


def _room_for(num_jobs: int) -> dict[str, Any]:
    """Settings with which this many jobs may wait; one client may hold half of what is free."""
    limits = {"max_queued_jobs": 3 * num_jobs, "max_queued_bytes": 3000 * num_jobs}
    return {
        **{name: max(value, 10**9) for name, value in limits.items()},
        "max_redis_bytes": max(30_000 * num_jobs, 10**10),
        "deadline_s": DEADLINE_S,
        # On a busy machine a full Redis may pause for longer than the two seconds of a service.
        "redis_timeout_s": 60,
        "lease_s": 60,
        # The benchmark posts in the name of each client.
        "trusted_proxies": "127.0.0.1",
    }


if __name__ == "__main__":
    main()
