"""One real worker process, and jobs for it without a web server."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from contract import keys
from contract.messages import Job, Record
from contract.settings import REPOSITORY
from contract.store.jobs.job_store import JobStore
from tests.conftest import HANG_S, wait_until
from tests.warm_process import WarmProcess

TINY_CHECKPOINT = REPOSITORY / "tests" / "oracle" / "small"
# One text of this size keeps the tiny model busy for 0.2 to 0.3 s on one core.
LONG_TEXT_BYTES = 4000


class Worker:
    """One `celery worker` of the test, killed by handle."""

    def __init__(self, folder: Path, redis_url: str, name: str = "w", **settings: str) -> None:
        self.log = folder / f"{name}.log"
        self._gate, self._held = folder / f"{name}.gate", folder / f"{name}.held"
        environment = {
            "EVASCORE_REDIS_URL": redis_url,
            "EVASCORE_MODEL": str(TINY_CHECKPOINT),
            "EVASCORE_DATA_DIR": str(folder / "data"),
            **{f"EVASCORE_{key.upper()}": value for key, value in settings.items()},
        }
        self.arguments = [
            *("celery", "-A", "worker.main", "worker"),
            *("-P", "solo", "-c", "1", "-n", f"{name}@test"),
        ]
        self.environment = {**os.environ, **environment, "OMP_WAIT_POLICY": "passive"}
        self.repository = REPOSITORY
        """The folder whose code `start_cold` runs."""
        self.process: WarmProcess | subprocess.Popen[bytes] | None = None

    def start(self) -> "Worker":
        """Start it with PyTorch imported already, which saves most of the time.

        Only Linux forks a process that has loaded such libraries without trouble.
        """
        if sys.platform != "linux":
            return self.start_cold()
        # Tests read it from the start.
        self.log.touch()
        self.process = WarmProcess(self.arguments, self.environment, self.log)
        return self

    def start_cold(self) -> "Worker":
        """Start it as a supervisor does, by a new interpreter."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.arguments],
                cwd=self.repository,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        return self

    def wait_ready(self) -> "Worker":
        wait_until(self._is_ready_or_over, timeout_s=HANG_S)
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return self

    def _is_ready_or_over(self) -> bool:
        assert self.process is not None
        return "worker_ready" in self.log.read_text() or self.process.poll() is not None

    def hold(self) -> "Worker":
        """Have each micro-batch wait before it is scored, until `let_go`; call it before `start`.

        So a test acts in the middle of a micro-batch, however long it takes to notice one.
        """
        if self.arguments[0] == "celery":
            waiting = "tests.fakes.failing_worker", "waiting", str(self._gate), str(self._held)
            self.arguments[:1] = waiting
        self._gate.touch()
        return self

    def wait_held(self) -> None:
        """Wait until a micro-batch is held: its jobs are opened, and Redis has them as suspects."""
        wait_until(self._held.exists)

    def let_go(self) -> None:
        """Have it go on; later micro-batches, of a successor too, wait no more."""
        self._gate.unlink()
        self._held.unlink()

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait_exit(self, timeout_s: float = HANG_S) -> int:
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def a_job(*sizes: int, priority: int = keys.INTERACTIVE, deadline_s: float = 600) -> Job:
    now = time.time()
    return Job(
        [{"text": "x" * size} for size in sizes],
        sum(sizes),
        submitted_at=now,
        deadline_at=now + deadline_s,
        is_single=len(sizes) == 1,
        priority=priority,
    )


def submit(store: JobStore, *sizes: int, **options: Any) -> str:
    return store.submit(a_job(*sizes, **options)).task_id


def final(store: JobStore, task_id: str, timeout_s: float = HANG_S) -> Record:
    wait_until(lambda: store.read(task_id).is_final, timeout_s=timeout_s)
    return store.read(task_id)


def is_started(store: JobStore, task_id: str) -> bool:
    return store.read(task_id).state == "STARTED"
