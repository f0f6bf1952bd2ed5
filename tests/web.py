"""The web tier alone: a real Gunicorn on a real Redis, and outcomes without a worker."""

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil

from contract import keys
from contract.batches import REFUSED, part_id, part_results
from contract.errors import ServiceError
from contract.messages import error_from_body, failure_record, success_record
from contract.setting_refusals import PREFIX
from contract.settings import REPOSITORY, load_settings
from contract.store.connection.broker import connect
from contract.store.jobs.endings import Ending
from contract.store.jobs.job_store import JobStore
from contract.stored_results import encode_success
from contract.worker_status import WorkerStatus
from deploy.embedded_redis import free_port
from tests.conftest import HANG_S, LIMITS, wait_until
from tests.waiting_messages import take

ANY_MODEL = {"name": "m"}


class WebServer:
    """One Gunicorn of the tests, killed by handle; its log is in `log`."""

    def __init__(self, folder: Path, redis_url: str, **settings: Any) -> None:
        """Prepare a server; further `settings` are EVASCORE_ variables in small letters."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "web.log"
        # A slow disk, or a machine that stands still for a moment, is no outage.
        times = {"redis_timeout_s": 5}
        given = {"redis_url": redis_url, "port": self.port, **times, **settings}
        variables = {PREFIX + name.upper(): str(value) for name, value in given.items()}
        self.settings = load_settings(variables)
        # `env` adds to what the tests themselves run with.
        self.command = [
            *("env", *(f"{name}={value}" for name, value in variables.items())),
            *(sys.executable, "-m", "gunicorn"),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "WebServer":
        """Start it and return when it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._answers)
        return self

    def stop(self) -> int:
        """End it as a supervisor does; its exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def client(self) -> httpx.Client:
        """An HTTP client of this server; the caller closes it."""
        return httpx.Client(base_url=self.url, timeout=60, limits=LIMITS)

    def workers(self) -> list[psutil.Process]:
        """The processes that serve requests."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children()

    def num_open(self, kind: str) -> int:
        """Number of open requests of one kind: wait, stream or upload."""
        page = httpx.get(f"{self.url}/metrics", timeout=10).text
        name = f'evascore_http_open_requests{{kind="{kind}"}} '
        (count,) = (line[len(name) :] for line in page.splitlines() if line.startswith(name))
        return int(float(count))

    def num_open_connections(self) -> int:
        """Number of connections that clients hold."""
        found = [each for worker in self.workers() for each in worker.net_connections("tcp")]
        return sum(each.status == "ESTABLISHED" and each.laddr.port == self.port for each in found)

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        """The logged events of one name."""
        # The last line may be half written.
        whole = self.log.read_bytes().rpartition(b"\n")[0]
        lines = map(orjson.loads, whole.splitlines())
        return [line for line in lines if line["event"] == event]

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"exit code {self.process.returncode}:\n{self.log.read_text()}")
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


class Outcomes:
    """Ends jobs as a worker does, through the job store."""

    def __init__(self, server: WebServer) -> None:
        # A test is not bound to the time limit of the service.
        settings = server.settings.model_copy(update={"redis_timeout_s": HANG_S})
        self.client = connect(settings)
        self.store = JobStore(self.client, server.settings)

    def succeed(self, task_id: str, result: dict[str, Any]) -> None:
        """End a job with `result`."""
        (opened,) = self.store.open_jobs([task_id])
        assert opened.job is not None
        record, stored = encode_success(task_id, result, opened.job.facts(), time.time())
        self.store.conclude([Ending(task_id, record, stored_result=stored)])

    def fail(self, task_id: str, error: ServiceError) -> None:
        """End a job with `error`."""
        (opened,) = self.store.open_jobs([task_id])
        assert opened.job is not None
        record = failure_record(task_id, error, opened.job.facts(), time.time())
        self.store.conclude([Ending(task_id, record, "jobs_failed")])

    def score_next_part(self, model: Mapping[str, Any] = ANY_MODEL) -> str | None:
        """Score the part of a batch that is next in the queue; its task ID, None if there is none.

        Every text gets its length as score, and `model` as its model.
        """
        message = take(self.client, keys.BULK)
        if message is None:
            return None
        task_id = str(orjson.loads(message)["headers"]["id"])
        part = part_id(task_id)
        assert part is not None
        for opened in self.store.open_jobs([task_id]):
            if opened.job is not None:
                job = opened.job
                outcomes = [
                    error_from_body(fields[REFUSED])
                    if REFUSED in fields
                    else {"num_bytes": len(fields["text"].encode())}
                    for fields in job.requests
                ]
                results = part_results(part, job.requests, outcomes, job.num_bytes, model)
                record = success_record(task_id, None, job.facts(), time.time())
                self.store.conclude([Ending(task_id, record, results=results)])
        return task_id

    def pose_as_worker(self, status: dict[str, Any]) -> None:
        """Hold a worker's lease with these fields of a status for an hour; ready unless said."""
        encoded = WorkerStatus(**{"state": "ready", **status}).encode()
        self.client.sadd(keys.WORKERS, status["name"])
        self.client.set(keys.lease(status["name"]), encoded, ex=3600)
