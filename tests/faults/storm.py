"""Many clients at once while worker and Redis are killed: nothing lost, nothing twice, all exact.

`make storm` runs it in full on the bundled model; the tests run a smaller edition.
"""

import argparse
import base64
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson
import redis

from contract import keys
from contract.messages import decode_record
from contract.settings import DEMO_CHECKPOINT, REPOSITORY
from tests.conftest import HANG_S
from tests.patient_client import PatientClient
from tests.service import Service

# Each side may differ from the exact score by half of this, see tests/oracle/README.md.
TOLERANCE_NATS, TOLERANCE_RELATIVE = 2e-4, 2e-6
SPEECHES = (
    "It was the best of times, it was the worst of times. ",
    "Der Zug nach Würzburg fährt heute von Gleis fünf. ",
    "Съешь же ещё этих мягких французских булок. ",
    "いろはにほへと ちりぬるを。",
    "🦊🚀👩‍👩‍👧‍👦🇩🇪 ",
    '{"key": [1, 2.5e-3, null], "<|endoftext|>": "\\u0000"}\n',
)
MAX_DELAY_S = 1.0
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Plan:
    """How hard the storm blows."""

    num_texts: int = 2000
    num_clients: int = 16
    worker_kills: int = 5
    redis_kills: int = 2
    max_text_bytes: int = 3000
    max_recovery_s: float = 10
    """What a killed worker had fetched must be scored within this."""
    patience_s: float = 3600
    seed: int = 0


@dataclass(slots=True)
class Report:
    """What came of it."""

    elapsed_s: float
    states: dict[str, int]
    """Final states, and how many jobs ended in them."""
    num_successes: int
    """First final states that were SUCCESS, as Redis counted them."""
    num_left: int
    """Jobs that Redis counts as not ended."""
    num_refused: int
    """Answers 503 and lost connections; each request was tried again."""
    recoveries_s: list[float]
    """For each killed worker: until the last job that it had fetched was scored by its successor"""
    worst_difference: float
    """Largest difference from `python -m model score`, in units of the tolerance."""


def make_requests(plan: Plan) -> list[dict[str, Any]]:
    """Texts of 1 to `max_text_bytes` bytes: prose, other scripts, emoji, JSON, random bytes."""
    generator = random.Random(plan.seed)
    texts = []
    for number in range(plan.num_texts):
        length = generator.choice(
            (1, plan.max_text_bytes, *generator.choices(range(2, plan.max_text_bytes), k=6))
        )
        speech = generator.choice(SPEECHES).encode()
        prose = (speech * (length // len(speech) + 1))[:length]
        texts.append(generator.randbytes(length) if number % 4 == 0 else prose)
    return [_request(text) for text in texts]


def _request(text: bytes) -> dict[str, Any]:
    try:
        return {"text": text.decode()}
    except UnicodeDecodeError:
        return {"text_b64": base64.b64encode(text).decode()}


def expected_nats(requests: list[dict[str, Any]], model: Path) -> list[float]:
    """Log-likelihood of each request's text by `python -m model score`, without the service."""
    answer = subprocess.run(
        [
            *("env", "OMP_WAIT_POLICY=passive", sys.executable),
            *("-m", "model", "score", "--model", str(model)),
        ],
        input=b"\n".join(map(orjson.dumps, requests)),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        check=True,
    )
    lines = map(orjson.loads, answer.stdout.splitlines())
    return [line["result"]["log_likelihood_nats"] for line in lines]


def blow(service: Service, plan: Plan) -> Report:
    """Send the plan's texts to a running, fresh service while its parts are killed."""
    requests = make_requests(plan)
    began = time.monotonic()
    executioner = _Executioner(service, plan)
    killing = threading.Thread(target=executioner.run)
    killing.start()
    with ThreadPoolExecutor(plan.num_clients) as clients:
        shares = [requests[at :: plan.num_clients] for at in range(plan.num_clients)]
        answers = list(clients.map(lambda share: _be_client(service, plan, share), shares))
    killing.join()
    elapsed_s = time.monotonic() - began

    jobs = [answers[n % plan.num_clients][0][n // plan.num_clients] for n in range(plan.num_texts)]
    with service.redis() as client:
        num_successes = int(client.hget(keys.TOTALS, "jobs_succeeded") or 0)
        num_left = client.hlen(keys.LIVE_JOBS)
        recoveries_s = executioner.recoveries_s(client)
    return Report(
        elapsed_s=round(elapsed_s, 1),
        states=dict(Counter(job["state"] for job in jobs)),
        num_successes=num_successes,
        num_left=num_left,
        num_refused=sum(num_refused for _, num_refused in answers),
        recoveries_s=[round(s, 2) for s in recoveries_s],
        worst_difference=_worst_difference(jobs, expected_nats(requests, service.model)),
    )


def _be_client(
    service: Service, plan: Plan, requests: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], int]:
    """Post all, then collect all; the jobs, and how often a request had to be tried again."""
    with PatientClient(service.url, plan.patience_s) as client:
        ids = [client.submit(fields) for fields in requests]
        return [client.ended(task_id) for task_id in ids], client.num_refused


def _worst_difference(jobs: list[dict[str, Any]], expected: list[float]) -> float:
    worst = 0.0
    for job, nats in zip(jobs, expected, strict=True):
        if job["state"] == "SUCCESS":
            difference = abs(job["result"]["log_likelihood_nats"] - nats)
            worst = max(worst, difference / (TOLERANCE_NATS + TOLERANCE_RELATIVE * abs(nats)))
    return round(worst, 4)


@dataclass(slots=True)
class _Death:
    """A killed worker."""

    at: float
    """Unix time, seconds."""
    fetched: list[str]
    """Task IDs of the jobs that it had fetched and not acknowledged."""


@dataclass(slots=True)
class _Executioner:
    """Kills parts of the service, spread evenly over the work."""

    service: Service
    plan: Plan
    deaths: list[_Death] = field(default_factory=list)

    def run(self) -> None:
        """Kill all that the plan wants killed."""
        worker, server = self.plan.worker_kills, self.plan.redis_kills
        kills = [self.kill_worker] * worker + [self.kill_redis] * server
        generator = random.Random(self.plan.seed)
        generator.shuffle(kills)
        for number, kill in enumerate(kills, start=1):
            self._await_successes(self.plan.num_texts * number // (len(kills) + 1))
            # Successes are counted when a batch ends; most deaths should meet one in the middle.
            time.sleep(generator.uniform(0, MAX_DELAY_S))
            kill()

    def kill_worker(self) -> None:
        """Stop the worker, note what it had in hand, and kill it."""
        worker = self.service.part("worker")
        worker.suspend()
        with self.service.redis() as client:
            (name,) = patiently(lambda: client.smembers(keys.WORKERS))
            tags = patiently(lambda: client.hkeys(keys.unacked(name.decode())))
        self.deaths.append(_Death(time.time(), [tag.decode() for tag in tags]))
        worker.kill()

    def kill_redis(self) -> None:
        """Kill the Redis server."""
        self.service.part("redis").kill()

    def recoveries_s(self, client: redis.Redis) -> list[float]:
        """For each death the seconds until the last job that the worker had fetched ended."""
        return [
            max(
                (decode_record(i, client.get(keys.record(i))).finished_at - death.at)
                for i in death.fetched
            )
            for death in self.deaths
            if death.fetched
        ]

    def _await_successes(self, count: int) -> None:
        deadline = time.monotonic() + self.plan.patience_s
        with self.service.redis() as client:
            while int(patiently(lambda: client.hget(keys.TOTALS, "jobs_succeeded")) or 0) < count:
                assert time.monotonic() < deadline, "the service makes no progress"
                time.sleep(0.005)


def patiently(ask: Callable[[], Answer], timeout_s: float = HANG_S) -> Answer:
    """Ask Redis until it answers: it may just be starting again."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return ask()
        except redis.RedisError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def main() -> int:
    """Run the full storm and print its report; 0 if nothing was lost or wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(DEMO_CHECKPOINT))
    plan = Plan()
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder), parser.parse_args().model).start()
        try:
            report = blow(service, plan)
        finally:
            service.stop()
    print(orjson.dumps({**asdict(plan), **asdict(report)}, option=orjson.OPT_INDENT_2).decode())
    return 0 if is_well(report, plan) else 1


def is_well(report: Report, plan: Plan) -> bool:
    """Whether every accepted job ended once, with the right score, and soon after each kill."""
    return (
        report.states == {"SUCCESS": plan.num_texts}
        and report.num_successes == plan.num_texts
        and report.num_left == 0
        and max(report.recoveries_s, default=0) < plan.max_recovery_s
        and report.worst_difference <= 1
    )


if __name__ == "__main__":
    sys.exit(main())
