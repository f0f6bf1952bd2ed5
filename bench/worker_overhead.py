"""Measures the worker's CPU time per text outside the model, under load.

A backlog of short texts is in Redis before the worker starts. Between two calls of the scorer,
the worker ends one full micro-batch and fetches, opens and chooses the next. The CPU time between
the calls, divided by the texts of a micro-batch, is the worker's own cost per text.
"""

import argparse
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import orjson
import redis

from bench.own_redis import own_redis
from bench.results import Results
from contract import keys
from contract.messages import Job
from contract.setting_refusals import environment_name
from contract.settings import REPOSITORY, Settings, load_settings
from contract.store.connection.broker import connect
from contract.store.jobs.job_store import JobStore
from tests.service import TINY_CHECKPOINT

TEXT = "A short text."
POLL_S = 0.05


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=16_384)
    parser.add_argument("--model", type=Path, default=TINY_CHECKPOINT)
    options = parser.parse_args()
    setup = {"texts": options.texts, "text_bytes": len(TEXT), "model": options.model.name}
    with Results("worker_overhead", setup) as results, own_redis() as url:
        given = {"redis_url": url, "model": str(options.model)}
        results.step(f"score {options.texts:,} texts")
        batches = _run({environment_name(n): v for n, v in given.items()}, options.texts)
        results.setup["batches"] = len(batches)
        results.put(_figures(batches), is_printed=False)


def _figures(batches: list[dict[str, Any]]) -> dict[str, float]:
    """CPU time per text inside the scorer, and between two of its calls with full batches."""
    full = max(batch["texts"] for batch in batches)
    models_us = [
        (batch["ended_cpu_s"] - batch["began_cpu_s"]) / full * 1e6
        for batch in batches
        if batch["texts"] == full
    ]
    turns_us = [
        (after["began_cpu_s"] - before["ended_cpu_s"]) / full * 1e6
        for before, after in pairwise(batches)
        if before["texts"] == after["texts"] == full
    ]
    return {
        "overhead_us_per_text_p50": round(median(turns_us), 1),
        "overhead_us_per_text_p90": round(quantiles(turns_us, n=10)[-1], 1),
        "model_us_per_text_p50": round(median(models_us), 1),
        "batch_texts": full,
    }


def _run(environment: dict[str, str], num_texts: int) -> list[dict[str, Any]]:
    """The batches of a worker with this environment that finds `num_texts` jobs waiting."""
    settings = load_settings(environment)
    with connect(settings) as client:
        _submit(client, settings, num_texts)
        variables = [f"{name}={value}" for name, value in environment.items()]
        worker = subprocess.Popen(
            [
                *("env", "OMP_WAIT_POLICY=passive", *variables, sys.executable, "-m", "celery"),
                *("--quiet", "-A", "bench.timed_worker", "worker", "-P", "solo", "-c", "1"),
                *("--without-gossip", "--without-mingle"),
            ],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        while client.hlen(keys.LIVE_JOBS):
            time.sleep(POLL_S)
        worker.terminate()
        reply, _ = worker.communicate()
    return [orjson.loads(line) for line in reply.splitlines() if line.startswith(b"{")]


def _submit(client: redis.Redis, settings: Settings, num_texts: int) -> None:
    store = JobStore(client, settings)
    now = time.time()
    job = Job([{"text": TEXT}], len(TEXT), submitted_at=now, deadline_at=now + 3600)
    for _ in range(num_texts):
        store.submit(job)


if __name__ == "__main__":
    main()
