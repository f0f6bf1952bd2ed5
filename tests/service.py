"""All of evascore as `make run` starts it, in a child process on free ports."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import httpx
import psutil
import redis

from contract.setting_refusals import PREFIX, environment_name
from contract.settings import REDIS_SOCKET, REPOSITORY, load_settings
from deploy.embedded_redis import free_port
from tests.conftest import HANG_S, LIMITS

TINY_CHECKPOINT = REPOSITORY / "tests" / "oracle" / "small"
"""Random weights, every feature of the architecture; loads in a moment."""

COMMAND = (sys.executable, "-m", "deploy.run")

Part = Literal["redis", "web", "worker"]
# What the command line of each process that the supervisor starts contains; the Redis server
# rewrites its own to program and socket.
_MARKS: dict[Part, str] = {"redis": REDIS_SOCKET, "web": "gunicorn", "worker": "celery"}


@contextmanager
def suspended(process: psutil.Process) -> Iterator[None]:
    """Stop a process, and let it run again at the end."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


class Service:
    """`python -m deploy.run` with a data folder of its own; its processes can be killed by name."""

    def __init__(
        self, folder: Path, model: Path = TINY_CHECKPOINT, **settings: str | int | Path
    ) -> None:
        """Prepare a service; `start` starts it.

        Args:
            folder: holds the data folder and the log.
            settings: further settings by their names in `contract/settings.py`.

        `repository` is the folder whose code runs; a test may set another one.
        """
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        self.data_dir = folder / "data"
        self.model = model
        self.repository = REPOSITORY
        ours: dict[str, str | int | Path] = {
            "port": self.port,
            "data_dir": self.data_dir,
            "model": model,
        }
        self.settings = {**ours, **settings}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str] = COMMAND, timeout_s: float = HANG_S) -> "Service":
        """Start it, the leader of its own process group, and return when it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.repository,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        self._wait_until_ready(timeout_s)
        return self

    def run_to_end(self, timeout_s: float = HANG_S) -> subprocess.CompletedProcess[str]:
        """Start it where it must refuse to, and return what it said."""
        return subprocess.run(
            COMMAND,
            cwd=REPOSITORY,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def stop(self, timeout_s: float = HANG_S) -> int:
        """End it by SIGTERM, or at once if that takes too long; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def press_ctrl_c(self) -> None:
        """Interrupt its whole process group, as a terminal does."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)

    def descendants(self) -> list[psutil.Process]:
        """All processes that it has started."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def part(self, part: Part) -> psutil.Process:
        """The process that is now this part of the service; waits while it is started again."""
        assert self.process is not None
        deadline = time.monotonic() + HANG_S
        while time.monotonic() < deadline:
            for child in psutil.Process(self.process.pid).children():
                try:
                    if _MARKS[part] in " ".join(child.cmdline()):
                        return child
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.01)
        raise TimeoutError(f"no {part} process")

    def client(self, timeout_s: float = 60) -> httpx.Client:
        """An HTTP client of this service; the caller closes it."""
        return httpx.Client(base_url=self.url, timeout=timeout_s, limits=LIMITS)

    def redis(self) -> redis.Redis:
        """A client of the embedded Redis; the caller closes it."""
        # It waits while the server is started again.
        self.part("redis")
        return redis.Redis.from_url(load_settings(self.environment()).redis)

    def num_micro_batches(self, before_end_of: str = "") -> int:
        """Number of micro-batches that the log shows, of all or before the end of a job.

        It counts by the log, not by the clock: the test may read it late.
        """
        count = 0
        for line in self.log.read_text().splitlines():
            if before_end_of and before_end_of in line and '"job_ended"' in line:
                break
            count += '"micro_batch_scored"' in line
        return count

    def environment(self) -> dict[str, str]:
        """The variables of its processes."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        return {
            **inherited,
            **{environment_name(name): str(value) for name, value in self.settings.items()},
        }

    def _wait_until_ready(self, timeout_s: float) -> None:
        assert self.process is not None
        deadline = time.monotonic() + timeout_s
        while f'"url":"{self.url}"' not in self.log.read_text():
            if self.process.poll() is not None:
                raise RuntimeError(f"exit code {self.process.returncode}:\n{self.log.read_text()}")
            if time.monotonic() > deadline:
                self.stop()
                raise TimeoutError(f"not ready within {timeout_s} s:\n{self.log.read_text()}")
            time.sleep(0.02)
