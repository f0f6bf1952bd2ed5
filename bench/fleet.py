"""Runs workers on cores of their own at one Redis, and reads from their logs what each has done."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import psutil
import redis

from bench.own_redis import own_redis
from contract import keys
from contract.messages import Job, Record
from contract.settings import Settings, load_settings
from contract.store.connection.broker import connect
from contract.store.jobs.job_store import JobStore
from tests.web import WebServer
from tests.worker_process import Worker

DEADLINE_S = 3600.0
_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What a worker scored together; times are Unix times in seconds."""

    worker: str
    num_texts: int
    num_bytes: int
    began_at: float
    """When the model began."""
    ended_at: float
    """When the last of its results was stored."""
    task_ids: tuple[str, ...] = ()
    """Jobs that ended with it."""


class NotDone(Exception):
    """Jobs did not end in time."""


class Fleet:
    """Some workers that are ready, and the jobs of one benchmark."""

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis,
        workers: Mapping[str, Worker],
        web: WebServer | None,
    ) -> None:
        self.client, self.workers = client, workers
        self.web = web
        self.store = JobStore(client, settings)
        self.submitted_at: dict[str, float] = {}
        """Unix time of each job by its task ID, seconds."""

    def submit(self, text: str) -> str:
        """Queue a text; return its task ID."""
        now, num_bytes = time.time(), len(text.encode())
        job = Job([{"text": text}], num_bytes, now, now + DEADLINE_S, client="bench")
        task_id = self.store.submit(job).task_id
        self.submitted_at[task_id] = now
        return task_id

    def submit_all(self, texts: Iterable[str]) -> list[str]:
        """Queue texts while no worker runs; return their task IDs in order."""
        for worker in self.workers.values():
            worker.send(signal.SIGSTOP)
        try:
            return [self.submit(text) for text in texts]
        finally:
            for worker in self.workers.values():
                worker.send(signal.SIGCONT)

    def wait_until_left(self, num_jobs: int, limit_s: float) -> None:
        """Wait until at most `num_jobs` have not ended. Raises: NotDone."""
        deadline = time.monotonic() + limit_s
        while (left := self.client.hlen(keys.LIVE_JOBS)) > num_jobs:
            if time.monotonic() > deadline:
                raise NotDone(f"{left} jobs have not ended after {limit_s:g} s")
            time.sleep(_POLL_S)

    def records(self, task_ids: Sequence[str]) -> list[Record]:
        """The records of jobs, with their results."""
        return [self.store.with_result(self.store.read(task_id)) for task_id in task_ids]

    def micro_batches(self, since: float = 0.0) -> list[MicroBatch]:
        """The micro-batches of all workers that began after `since` (Unix time, seconds)."""
        found: list[MicroBatch] = []
        for name, worker in self.workers.items():
            found += micro_batches(name, _lines(worker.log))
        return [each for each in found if each.began_at >= since]


@contextmanager
def fleet(
    model: Path,
    num_workers: int,
    settings: Mapping[str, str],
    *,
    has_web: bool = False,
    program: str = "worker.main",
    is_warm: bool = False,
) -> Iterator[Fleet]:
    """Yield workers that are ready, each with one thread on one core; end them afterwards.

    With more workers than cores, several share a core.

    Args:
        settings: further settings by their names in `contract/settings.py`.
        has_web: start a web server too.
        program: the module that Celery runs.
        is_warm: import PyTorch once for all workers, as tests do.
    """
    with tempfile.TemporaryDirectory() as name, own_redis() as url:
        given = {"model": str(model), **settings}
        folder, workers = Path(name), dict[str, Worker]()
        web = WebServer(folder, url, **given) if has_web else None
        try:
            for number in range(num_workers):
                worker = Worker(folder, url, f"w{number}", **given)
                arguments = [word.replace("worker.main", program) for word in worker.arguments]
                worker.arguments = [*arguments, "--without-gossip", "--without-mingle"]
                worker.environment["OMP_NUM_THREADS"] = "1"
                start = worker.start if is_warm else worker.start_cold
                workers[f"w{number}@test"] = start()
                assert worker.process is not None
                pin(worker.process.pid, number)
            if web is not None:
                web.start()
            for worker in workers.values():
                worker.wait_ready()
            variables = {"EVASCORE_REDIS_URL": url, "EVASCORE_MODEL": str(model)}
            found = load_settings(variables)
            with connect(found) as client:
                yield Fleet(found, client, workers, web)
        finally:
            for worker in workers.values():
                worker.stop()
            if web is not None and web.process is not None:
                web.stop()


def pin(pid: int, number: int) -> None:
    """Keep a process and the threads that it has on one core: the last one for number 0.

    Later threads inherit that. Only Linux can do it.
    """
    if sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0), reverse=True)
        for thread in psutil.Process(pid).threads():
            os.sched_setaffinity(thread.id, {cores[number % len(cores)]})


def num_cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def micro_batches(worker: str, lines: Iterable[Mapping[str, Any]]) -> Iterator[MicroBatch]:
    """Yield the micro-batches in the log of a worker."""
    last = None
    for line in lines:
        if line["event"] == "micro_batch_scored":
            if last is not None:
                yield last
            scored_at = _unix_time(line)
            began_at = scored_at - line["compute_ms"] / 1000
            last = MicroBatch(worker, line["slices"], line["bytes"], began_at, scored_at)
        elif line["event"] == "job_ended" and last is not None:
            task_ids = (*last.task_ids, line["task_id"])
            last = replace(last, ended_at=_unix_time(line), task_ids=task_ids)
    if last is not None:
        yield last


def steady_texts_per_s(batches: Sequence[MicroBatch]) -> float:
    """Throughput while every worker was at work: after the last one's start, to the first's end.

    A micro-batch that is partly in that time counts in part. 0 if there is no such time.
    """
    by_worker: dict[str, list[MicroBatch]] = {}
    for each in batches:
        by_worker.setdefault(each.worker, []).append(each)
    begin = max(min(each.began_at for each in own) for own in by_worker.values())
    end = min(max(each.ended_at for each in own) for own in by_worker.values())
    if end <= begin:
        return 0.0
    num_texts = 0.0
    for each in batches:
        inside_s = min(each.ended_at, end) - max(each.began_at, begin)
        num_texts += each.num_texts * max(inside_s, 0.0) / (each.ended_at - each.began_at)
    return num_texts / (end - begin)


def _lines(log: Path) -> Iterator[dict[str, Any]]:
    """The events of a log; a worker that is killed may leave half a line."""
    for line in log.read_bytes().splitlines():
        if line.startswith(b"{") and line.endswith(b"}"):
            yield orjson.loads(line)


def _unix_time(line: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()
