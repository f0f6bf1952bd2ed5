"""Measures what a worker's fetch costs Redis with one client and with many that wait.

The same number of jobs of the same sizes waits in both runs, which alternate. The time is the CPU
time of Redis' main thread, so a busy machine changes it little.
"""

import argparse
import math
import random
import time
from statistics import median

import redis

from bench.own_redis import own_redis
from bench.results import Results
from contract import keys
from contract.messages import Job
from contract.settings import Settings, load_settings
from contract.store.connection.broker import connect
from contract.store.connection.scripts import register
from contract.store.jobs.job_store import JobStore
from worker.queue import transport
from worker.scheduling.filling import Budget
from worker.scheduling.room import fetch_arguments, room_for_fetch

WORKER = "bench"


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--limit-s", type=float, default=math.inf, help="stop after so many seconds"
    )
    options = parser.parse_args()
    setup = {"jobs": options.jobs, "clients": options.clients, "rounds": options.rounds}
    with Results("fetch", setup, limit_s=options.limit_s) as results, own_redis() as url:
        settings = load_settings({"EVASCORE_REDIS_URL": url})
        with connect(settings) as client:
            pairs: list[list[float]] = []
            for number in range(options.rounds):
                results.step(f"round {number + 1} of {options.rounds}")
                pairs.append(
                    [_fetch_all(client, settings, options.jobs, n) for n in (1, options.clients)]
                )
                results.put(_figures(pairs))


def _figures(pairs: list[list[float]]) -> dict[str, float | list[float]]:
    one, many = (median(pair[i] for pair in pairs) for i in (0, 1))
    return {
        "us_per_job_one_client": round(one, 2),
        "us_per_job_many_clients": round(many, 2),
        "ratio": round(median(pair[1] / pair[0] for pair in pairs), 3),
        "ratio_of_each_round": [round(pair[1] / pair[0], 3) for pair in pairs],
    }


def _fetch_all(client: redis.Redis, settings: Settings, num_jobs: int, num_clients: int) -> float:
    """Queue jobs and fetch them as an idle worker does; Redis' CPU time per job, us."""
    client.flushall()
    _submit(client, settings, num_jobs, num_clients)
    room = room_for_fetch((), Budget.of(settings))
    worker = keys.unacked(WORKER), keys.unacked_index(WORKER)
    names, args = fetch_arguments(keys.UNBOUND, room, worker, time.time())
    fetch = register(client, "fetch", transport.SCRIPTS)
    fetch(keys=names, args=args)
    num_fetched, before_s = 0, _cpu_s(client)
    while fetched := fetch(keys=names, args=args):
        num_fetched += len(fetched) // 3
        client.delete(*names[:2])
    return (_cpu_s(client) - before_s) / num_fetched * 1e6


def _cpu_s(client: redis.Redis) -> float:
    used = client.info("cpu")
    return float(used["used_cpu_user_main_thread"] + used["used_cpu_sys_main_thread"])


def _submit(client: redis.Redis, settings: Settings, num_jobs: int, num_clients: int) -> None:
    # Two submissions in three are short; the sizes are the same in every run.
    sizes = random.Random(7)
    store, now = JobStore(client, settings), time.time()
    for index in range(num_jobs):
        size = sizes.choice((40, 120, 2000))
        sender = f"192.0.{index % num_clients // 250}.{index % num_clients % 250}"
        store.submit(Job([{"text": "x"}], size, now, now + 3600, client=sender))


if __name__ == "__main__":
    main()
