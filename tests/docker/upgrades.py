"""Replaces the release of a service while it works, and checks that nothing is lost."""

import json
import re
import shlex
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import evascore
from contract.settings import REPOSITORY
from tests.conftest import HANG_S, wait_until
from tests.docker.conftest import BUILD_S, Stack, output
from tests.releases import TEXTS, THIS, Work, make_repository

# One text a micro-batch, so that work takes a while. The lease outlasts the pause of the workers.
ENV = """EVASCORE_AUTH=keys
EVASCORE_MICRO_BATCH_TEXTS=1
EVASCORE_LEASE_S=20
OMP_NUM_THREADS=1
"""
KEY = "python -m app.keys create alice --scopes score,bulk,metrics"
NUM_LINES = 160


def commands(chapter: str, version: str) -> list[str]:
    """The commands of a chapter of docs/upgrade.md, for this version."""
    document = (REPOSITORY / "docs/upgrade.md").read_text()
    pattern = rf"^## {re.escape(chapter)}\n.*?^```sh\n(.*?)^```$"
    block = re.search(pattern, document, re.MULTILINE | re.DOTALL)[1]
    assert "v0.2.0" in block
    return block.replace("v0.2.0", f"v{version}").splitlines()


class Upgraded(Stack):
    """A service in a checkout of its own, which goes from one release to another."""

    def __init__(self, checkout: Path, folder: Path | None = None) -> None:
        """Prepare a service from a checkout, or from the copy of it in `folder`."""
        super().__init__("evascore-upgrade-test", folder or checkout)
        self.checkout = checkout
        self.variables["IMAGE_TAG"] = "upgrade-test"
        self.token = ""
        make_repository(checkout)
        (checkout / ".env").write_text(ENV)

    def release(self, version: str) -> None:
        """Run the commands of the document for this version."""
        checkout, *ups = (shlex.split(line) for line in commands("Containers", version))
        output(*checkout, folder=self.folder)
        for command in ups:
            assert command[:3] == ["docker", "compose", "up"]
            self.compose(*command[2:], timeout_s=BUILD_S)

    def build(self, version: str) -> None:
        """Build the images of a version, so that `release` finds its layers."""
        output("git", "checkout", "--quiet", f"v{version}", folder=self.checkout)
        files = ("-f", "docker-compose.yml", "-f", "compose.cpu.yml")
        tag = f"IMAGE_TAG={self.variables['IMAGE_TAG']}"
        command = ("env", tag, "docker", "compose", *files, "build")
        output(*command, folder=self.checkout, timeout_s=BUILD_S)

    def client(self) -> httpx.Client:
        """An HTTP client with the API key."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, timeout=60, headers=headers)

    def versions(self) -> set[str]:
        """The releases of all web servers and workers that run."""
        show = ("python", "-c", "import contract; print(contract.__version__)")
        return {
            output("docker", "exec", container, *show).strip()
            for service in ("web", "worker")
            for container in self.containers(service)
        }


@dataclass
class Gap:
    """Asks a route again and again, and measures for how long at most it did not answer 200."""

    url: str
    longest_s: float = 0
    _is_over: threading.Event = field(default_factory=threading.Event)

    def measure(self) -> None:
        """Ask until `end` is called."""
        answered_at = time.monotonic()
        while not self._is_over.wait(0.05):
            try:
                is_well = httpx.get(self.url, timeout=5).status_code == 200
            except httpx.HTTPError:
                is_well = False
            if is_well:
                self.longest_s = max(self.longest_s, time.monotonic() - answered_at)
                answered_at = time.monotonic()

    def end(self) -> None:
        self._is_over.set()


@contextmanager
def measured(service: Upgraded, what: str) -> Iterator[None]:
    """Print for how long the service did not answer, and for how long no worker was ready."""
    gaps = [Gap(f"{service.url}/{route}") for route in ("healthz", "readyz")]
    with ThreadPoolExecutor(len(gaps)) as pool:
        for gap in gaps:
            pool.submit(gap.measure)
        try:
            yield
        finally:
            for gap in gaps:
                gap.end()
    away, unready = (f"{gap.longest_s:.1f} s" for gap in gaps)
    print(f"{what}: {away} without an answer, {unready} without a ready worker")


class Left:
    """The work of all clients at one upgrade: a batch and jobs. A worker scores the last job."""

    def __init__(self, service: Upgraded, pool: ThreadPoolExecutor) -> None:
        """Send it. Workers are paused when this returns: `docker stop` lets them go on.

        A client scores one text after the other in `pool` until `end`.
        """
        self._service = service
        self._client = evascore.Client(
            service.url, api_key=service.token, patience_s=HANG_S, on_wait=self._count
        )
        self.num_retries = 0
        self.jobs: list[evascore.Job] = []
        with service.client() as http:
            self.work = Work(http, self._still(), NUM_LINES)
        self._is_over = threading.Event()
        self._scores = pool.submit(self._score_on)

    def end(self) -> None:
        """End the client that scores."""
        self._is_over.set()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _score_on(self) -> list[evascore.Score]:
        scores = []
        while not self._is_over.is_set():
            scores.append(self._client.score(TEXTS[1], timeout_s=HANG_S))
        return scores

    def _count(self, _reason: str) -> None:
        self.num_retries += 1

    @contextmanager
    def _still(self) -> Iterator[None]:
        """Pause the workers while they score a job, however fast they are."""
        workers = self._service.containers("worker")
        for num_texts in (10, 20, 40, 80, 160):
            self.jobs.append(self._client.submit(*TEXTS * (num_texts // len(TEXTS))))
            wait_until(lambda: self._state() != "QUEUED", HANG_S)
            for container in workers:
                wait_until(partial(_pause, container), HANG_S)
            if self._state() == "STARTED":
                break
            output("docker", "unpause", *workers)
        assert self._state() == "STARTED"
        yield

    def _state(self) -> str:
        return self._client.job(self.jobs[-1]).state

    @property
    def num_jobs(self) -> int:
        """The number of jobs, without the lines of the batch."""
        return Work.num_jobs + len(self.jobs) + len(self._scores.result(HANG_S))

    def check_all_is_scored(self) -> None:
        """Wait for everything; each text has its score."""
        scores = self._scores.result(HANG_S)[:]
        for job in self.jobs:
            scores += self._client.wait(job, timeout_s=HANG_S).outcomes()[1 :: len(TEXTS)]
        with self._service.client() as http:
            self.work.check_all_is_scored(http)
            same = http.get(self.work.waiting[1]).json()["result"]["log_likelihood_nats"]
        for score in scores:
            assert score.log_likelihood_nats == pytest.approx(same, rel=1e-5)


def _pause(container: str) -> bool:
    """Pause a container; False if the engine refused, as some do on a busy machine."""
    done = subprocess.run(["docker", "pause", container], capture_output=True, check=False)
    return done.returncode == 0


class Ledger:
    """Everything that was left at the upgrades so far, and what the service has counted."""

    def __init__(self, service: Upgraded) -> None:
        self._service = service
        self._left: list[Left] = []
        self._logs: list[str] = []

    def upgrade(self, version: str) -> None:
        """Replace the release while it works, and see that nothing is lost or scored twice."""
        before = self._service.versions()
        self._service.build(version)
        with ThreadPoolExecutor(1) as pool, self._old_logs():
            left = Left(self._service, pool)
            self._left.append(left)
            try:
                with measured(self._service, f"{before} to {version}"):
                    self._service.release(version)
            finally:
                left.end()
        assert self._service.versions() == {version}
        for left in self._left:
            left.check_all_is_scored()
        self._check_each_ended_once()
        self._check_counters()

    def close(self) -> None:
        """Close the connections of all clients."""
        for left in self._left:
            left.close()

    @contextmanager
    def _old_logs(self) -> Iterator[None]:
        """Keep the logs of workers that are replaced meanwhile."""
        followers = [
            subprocess.Popen(
                ["docker", "logs", "--follow", container],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for container in self._service.containers("worker")
        ]
        with ThreadPoolExecutor(len(followers)) as pool:
            logs = [pool.submit(follower.communicate) for follower in followers]
            try:
                yield
                self._logs += [log.result(HANG_S)[0] for log in logs]
            finally:
                for follower in followers:
                    follower.kill()

    def _check_each_ended_once(self) -> None:
        lines = "\n".join([*self._logs, self._service.logs("worker")]).splitlines()
        events = [json.loads(line) for line in lines if '"event":"job_ended"' in line]
        assert {event["state"] for event in events} == {"SUCCESS"}
        times = Counter(event["task_id"] for event in events)
        assert set(times.values()) == {1}
        # Jobs of a batch have the number of their first line.
        alone = [task_id for task_id in times if "." not in task_id]
        assert len(alone) == sum(left.num_jobs for left in self._left)

    def _check_counters(self) -> None:
        with self._service.client() as http:
            metrics = {
                (sample.name, *sample.labels.values()): sample.value
                for family in text_string_to_metric_families(http.get("/metrics").text)
                for sample in family.samples
            }
            stats = http.get("/stats").json()
        num_upgrades = len(self._left)
        returned, lost = (
            metrics["evascore_redelivered_jobs_total", cause] for cause in ("returned", "lost")
        )
        retries = [left.num_retries for left in self._left]
        print(f"jobs returned: {returned:.0f}, lost with a worker: {lost:.0f}, retries: {retries}")
        lines = ("evascore_bulk_ended_lines_total", "completed")
        assert metrics[lines] == num_upgrades * NUM_LINES
        assert metrics["evascore_bulk_ended_batches_total", "completed"] == num_upgrades
        assert stats["queue"]["jobs"] == stats["queue"]["parked"] == 0
        assert stats["dead_letters"]["count"] == 0


@contextmanager
def started(service: Upgraded) -> Iterator[Ledger]:
    """Start this release and make an API key; gone with volumes and images at the end."""
    try:
        service.release(THIS)
        service.token = service.run_in("web", *KEY.split()).split()[-1]
        ledger = Ledger(service)
        yield ledger
        ledger.close()
    finally:
        service.compose("down", "--volumes", "--rmi", "all", "--timeout", "30")
