"""Real servers for tests, on free ports, killed by handle when the test ends.

With `-m gpu`, only the files with tests that need a GPU are collected. They need no package of the
service, so this file imports those where it uses them.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import httpx
import pytest

if TYPE_CHECKING:
    import psutil
    import redis

    from contract.settings import Settings
    from contract.store.jobs.job_store import JobStore

T = TypeVar("T")
GPU_TESTS = "mark.gpu"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files and folders without a GPU test, if `-m gpu` asks for these alone."""
    if config.option.markexpr != "gpu":
        return None
    if collection_path.is_dir():
        marking = [*collection_path.rglob("test_*.py"), *collection_path.rglob("conftest.py")]
    elif collection_path.match("test_*.py"):
        # A conftest.py can mark all tests of its folder.
        marking = [collection_path, collection_path.with_name("conftest.py")]
    else:
        return None
    this_file = Path(__file__)
    has_gpu_tests = any(
        path.exists() and path != this_file and GPU_TESTS in path.read_text() for path in marking
    )
    return None if has_gpu_tests else True


LIMITS = httpx.Limits(keepalive_expiry=2)
"""For clients of tests. The web server closes connections that are idle for five seconds, and a
request that is sent at that moment gets no answer. So older connections are not used again."""

HANG_S = 600
"""After this a process counts as hanging. It does not measure speed: on a busy machine, importing
torch alone was seen to take 45 s."""


class RedisServer:
    """A Redis-protocol server of one test, which may kill and start it again."""

    def __init__(self, data_dir: Path) -> None:
        from deploy.embedded_redis import free_port

        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.socket: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._is_known = False
        """Whether a test may know the port."""

    def start(self) -> None:
        """Start it; the first time on another port if somebody took its own meanwhile."""
        from deploy.embedded_redis import free_port

        for _ in range(5):
            if self._starts():
                self._is_known = True
                return
            if not self._is_known:
                self.port = free_port()
                self.url = f"redis://127.0.0.1:{self.port}/0"
            time.sleep(0.2)
        assert self.process is not None
        raise RuntimeError(f"Redis ended with exit code {self.process.returncode}")

    def _starts(self) -> bool:
        import redis

        from deploy.embedded_redis import server_command

        command = server_command(port=self.port, server=self.socket, data_dir=self.data_dir)
        # It ignores SIGXFSZ, so that `fill_disk` gives it an error and does not end it.
        ignoring = ["sh", "-c", 'trap "" XFSZ; exec "$@"', "sh", *command]
        process = subprocess.Popen(ignoring, stdout=subprocess.DEVNULL)
        self.process = process
        with redis.Redis.from_url(self.url, socket_timeout=1) as client:
            wait_until(lambda: process.poll() is not None or _answers(client))
        return process.poll() is None

    def fill_disk(self) -> None:
        """Have every further write to its files fail, as on a full disk, until `clear_disk`.

        With `appendfsync always` it would end; with `everysec` it refuses writes.
        """
        import redis

        with redis.Redis.from_url(self.url) as client:
            client.config_set("appendfsync", "everysec")
            self._limit_files(1)
            # It takes one write before it notices.
            wait_until(lambda: _refuses_writes(client), timeout_s=20)

    def clear_disk(self) -> None:
        """End what `fill_disk` began."""
        self._limit_files(resource.RLIM_INFINITY)

    def _limit_files(self, num_bytes: int) -> None:
        assert self.process is not None
        if sys.platform != "linux":
            pytest.skip("only Linux limits the files of another process")
        limits = num_bytes, resource.RLIM_INFINITY
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, limits)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _refuses_writes(client: redis.Redis) -> bool:
    import redis

    try:
        return not client.set("of-a-test", "")
    except redis.ResponseError:
        return True


def _answers(client: redis.Redis) -> bool:
    import redis

    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def has_ended(process: psutil.Process) -> bool:
    """Whether a process has ended; an orphan that nobody reaps counts as ended."""
    import psutil

    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def killed_at_end(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Kill a process that a test has started if it still runs when the test ends."""
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def wait_until(condition: Callable[[], T], timeout_s: float = 180, every_s: float = 0.02) -> T:
    """The first true value of `condition()`; fails the test when `timeout_s` pass without one."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s} s: {condition}")
        time.sleep(every_s)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A fresh Redis with an empty data folder."""
    data_dir = tmp_path / "redis"
    data_dir.mkdir()
    server = RedisServer(data_dir)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    """Default settings on the test's Redis; the default model is the tiny one of the workers."""
    from contract.settings import load_settings

    return load_settings({"EVASCORE_REDIS_URL": redis_server.url, "EVASCORE_MODEL_NAME": "small"})


@pytest.fixture
def redis_client(settings: Settings) -> Iterator[redis.Redis]:
    """A client of the test's Redis, which waits for it on a busy machine or a slow disk."""
    from contract.store.connection.broker import connect

    with connect(settings) as client:
        client.connection_pool.connection_kwargs["socket_timeout"] = HANG_S
        yield client


@pytest.fixture
def job_store(redis_client: redis.Redis, settings: Settings) -> JobStore:
    """A job store on the test's Redis."""
    from contract.store.jobs.job_store import JobStore

    return JobStore(redis_client, settings)
