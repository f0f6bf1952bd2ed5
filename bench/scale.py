"""Measures 1, 2 and 4 workers at one Redis: throughput, spread, and what a killed worker costs.

    python -m bench.scale [--workers 1 2 4] [--texts 600]

Each worker has one thread and a core of its own, as far as the machine has cores. The queue is
filled before the workers can empty it, so that all of them are busy. In the last run one of two
workers is killed. Each run checks that every text has one result, with the score of the first run.
"""

import argparse
import math
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from bench.fleet import Fleet, NotDone, fleet, num_cores, steady_texts_per_s
from bench.results import Results
from bench.texts import make_texts
from contract import keys
from contract.settings import DEMO_CHECKPOINT
from contract.store.connection.readings import read
from contract.store.jobs.counts import ask_totals
from contract.store.queue.leases import CAUSES, REDELIVERED

# Small enough for many micro-batches, so that the end of a run counts little.
MICRO_BATCH_BYTES = 2048
RUN_LIMIT_S = 1800.0
_POLL_S = 0.001


class WrongResults(Exception):
    """A text has no result, more than one, or another score than in the first run."""


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--model", type=Path, default=Path(DEMO_CHECKPOINT))
    parser.add_argument(
        "--limit-s", type=float, default=math.inf, help="stop after this many seconds"
    )
    options = parser.parse_args()
    texts = make_texts(options.texts)
    setup = {
        "texts": options.texts,
        "model": options.model.name,
        "micro_batch_bytes": MICRO_BATCH_BYTES,
        "cores": num_cores(),
        "more_workers_than_cores": [n for n in options.workers if n > num_cores()],
    }
    with Results("scale", setup, limit_s=options.limit_s) as results:
        scores: list[float] = []
        for number in options.workers:
            results.step(f"{number} workers")
            with _fleet(options.model, number) as workers:
                figures, scores = run(workers, texts, scores)
            first = results.figures.setdefault("first_texts_per_s", figures["texts_per_s"])
            figures["times_the_first"] = round(figures["texts_per_s"] / first, 3)
            results.put({f"workers_{number}_{name}": each for name, each in figures.items()})
        results.step("2 workers, one is killed")
        with _fleet(options.model, 2) as workers:
            figures, _ = run_with_a_death(workers, texts, scores)
        results.put({f"killed_{name}": each for name, each in figures.items()})


def _fleet(model: Path, number: int) -> AbstractContextManager[Fleet]:
    return fleet(model, number, {"micro_batch_bytes": str(MICRO_BATCH_BYTES)})


def run(
    workers: Fleet, texts: Sequence[str], scores: Sequence[float]
) -> tuple[dict[str, Any], list[float]]:
    """Score all texts; return figures, and the log-likelihood of each text in nats.

    Args:
        scores: those of an earlier run to compare with; may be empty.

    Raises:
        WrongResults, NotDone
    """
    task_ids = workers.submit_all(texts)
    workers.wait_until_left(0, RUN_LIMIT_S)
    found = check(workers, task_ids, scores)
    batches = workers.micro_batches()
    shares = Counter[str]()
    for each in batches:
        shares[each.worker] += each.num_texts
    figures = {
        "texts_per_s": round(steady_texts_per_s(batches), 2),
        "share_of_each": sorted(round(shares[name] / len(texts), 3) for name in workers.workers),
        "mean_batch_texts": round(shares.total() / len(batches), 1),
        "scored_again": shares.total() - len(texts),
    }
    return figures, found


def run_with_a_death(
    workers: Fleet, texts: Sequence[str], scores: Sequence[float]
) -> tuple[dict[str, Any], list[float]]:
    """As `run`, but a worker that is scoring is killed after a third of the texts.

    Raises:
        WrongResults, NotDone
    """
    task_ids = workers.submit_all(texts)
    workers.wait_until_left(len(texts) * 2 // 3, RUN_LIMIT_S)
    held = _kill_one_at_work(workers)
    killed = time.monotonic()
    while any(workers.client.hexists(keys.LIVE_JOBS, task_id) for task_id in held):
        if time.monotonic() > killed + RUN_LIMIT_S:
            raise NotDone(f"jobs of the killed worker have no result after {RUN_LIMIT_S:g} s")
        time.sleep(_POLL_S)
    recovered_s = time.monotonic() - killed
    workers.wait_until_left(0, RUN_LIMIT_S)
    found = check(workers, task_ids, scores)
    totals = read(workers.client, ask_totals())
    figures = {
        "texts_in_hand": len(held),
        "recovered_s": round(recovered_s, 2),
        "redelivered": sum(totals.get(REDELIVERED + cause, 0) for cause in CAUSES),
        "results": totals["jobs_succeeded"],
    }
    return figures, found


def check(workers: Fleet, task_ids: Sequence[str], scores: Sequence[float]) -> list[float]:
    """Return the log-likelihood of each text in nats.

    Raises:
        WrongResults: not every job has succeeded once, or a score differs from `scores`.
    """
    num_succeeded = read(workers.client, ask_totals()).get("jobs_succeeded", 0)
    if num_succeeded != len(task_ids):
        raise WrongResults(f"{num_succeeded} results of {len(task_ids)} texts")
    records = workers.records(task_ids)
    failed = Counter(record.state for record in records if record.state != "SUCCESS")
    if failed:
        raise WrongResults(f"jobs that did not succeed: {dict(failed)}")
    found = [float(record.result["log_likelihood_nats"]) for record in records]
    for number, (one, other) in enumerate(zip(found, scores, strict=bool(scores))):
        # Other texts in a pass move the last digits, see docs/numerics.md.
        if not math.isclose(one, other, rel_tol=2e-6, abs_tol=2e-4):
            raise WrongResults(f"text {number} has {one} nats, and had {other} before")
    return found


def _kill_one_at_work(workers: Fleet) -> list[str]:
    """Kill a worker in the middle of a micro-batch; return the task IDs it had. Raises: NotDone"""
    while workers.client.hlen(keys.LIVE_JOBS):
        for name, worker in workers.workers.items():
            if not workers.client.scard(keys.aboard(name)):
                continue
            # Stopped, it cannot end the micro-batch before it is killed.
            worker.send(signal.SIGSTOP)
            if held := workers.client.hkeys(keys.unacked(name)):
                worker.stop()
                return [task_id.decode() for task_id in held]
            worker.send(signal.SIGCONT)
        time.sleep(_POLL_S)
    raise NotDone("all texts were scored before a worker could be killed; take more texts")


if __name__ == "__main__":
    main()
