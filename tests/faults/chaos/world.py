"""Runs Redis, a web server and three workers behind proxies, and restarts those that die."""

import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis
import torch

from contract.api_keys import new_key
from contract.settings import Settings, load_settings
from contract.store.connection.broker import connect
from contract.store.key_store import KeyStore
from model import EvaByteConfig, EvaByteForCausalLM
from tests.conftest import RedisServer, wait_until
from tests.faults.chaos.history import History
from tests.proxy import Proxy
from tests.releases import copy_repository, make_next
from tests.service import TINY_CHECKPOINT
from tests.warm_process import WarmProcess
from tests.web import WebServer
from tests.worker_process import Worker

LEASE_S = 2.0
CLOCK = Path(__file__).parent / "clock"
"""On PYTHONPATH, it makes the clock of a process one that can be set wrong."""
WORKERS = {"a1": "mine", "a2": "mine", "b": "theirs"}
"""The name of the model of each worker."""
QUOTA_PER_MINUTE = 600

_START_S = 300
_SETTINGS: dict[str, str] = {
    "lease_s": f"{LEASE_S:g}",
    "redis_timeout_s": "1",
    "drain_s": "5",
    "forget_s": "5",
    "max_wait_s": "10",
    "web_timeout_s": "20",
    "completion_wait_s": "60",
    "micro_batch_timeout_s": "30",
    "micro_batch_bytes": "4096",
    "micro_batch_texts": "32",
    "log_level": "INFO",
    # Workers are killed here for no fault of a job.
    "max_crashes": "1000",
}


class World:
    """All processes of a run, on free ports; each is killed by its handle."""

    def __init__(self, folder: Path, history: History, deadline_s: float = 150) -> None:
        """Prepare the processes, with a default deadline of jobs; `start` starts them."""
        self.folder, self.history, self.deadline_s = folder, history, deadline_s
        self._times = {**_SETTINGS, "deadline_s": f"{deadline_s:g}"}
        (folder / "redis").mkdir()
        self.redis_server = RedisServer(folder / "redis")
        self.checkpoints = {"mine": TINY_CHECKPOINT, "theirs": folder / "theirs"}
        self.tokens: dict[str, str] = {}
        self.texts: dict[str, list[str]] = {}
        """The texts of each client."""
        self.proxies: dict[str, Proxy] = {}
        self.workers: dict[str, Worker] = {}
        self.web: WebServer | None = None
        self.is_stopped: dict[str, bool] = {}
        """Which processes the harness itself holds down or kills at the moment."""
        self._ending = threading.Event()
        self._keepers: list[threading.Thread] = []

    def start(self) -> None:
        """Start everything and return when both models are ready."""
        torch.manual_seed(1)
        shape = EvaByteConfig.from_pretrained(TINY_CHECKPOINT)
        EvaByteForCausalLM(shape).save_pretrained(self.checkpoints["theirs"])
        self.redis_server.start()
        for name in ("web", "next", *WORKERS):
            self.proxies[name] = Proxy(self.redis_server.port)
        self._make_keys()
        self.web = self._web_server()
        self.web.start()
        self.proxies["clients"] = Proxy(self.web.port)
        for name, model in WORKERS.items():
            self.workers[name] = self._worker(name, model).start_cold()
        for worker in self.workers.values():
            worker.wait_ready()
        for name in ("redis", "web", *WORKERS):
            self._keepers.append(threading.Thread(target=self._keep, args=(name,)))
            self._keepers[-1].start()

    def stop(self) -> None:
        """End everything."""
        self._ending.set()
        for keeper in self._keepers:
            keeper.join()
        for worker in self.workers.values():
            worker.stop()
        if self.web is not None and self.web.process is not None:
            _kill_family(self.web.process.pid)
            self.web.process.wait()
        for proxy in self.proxies.values():
            proxy.close()
        self.redis_server.kill()

    @property
    def url(self) -> str:
        """Where clients connect: the proxy before the web server."""
        return f"http://127.0.0.1:{self.proxies['clients'].port}"

    @property
    def settings(self) -> Settings:
        """Settings for the harness's own connection, which no proxy is in the way of."""
        return load_settings({"EVASCORE_REDIS_URL": self.redis_server.url})

    def redis(self) -> redis.Redis:
        """A connection to Redis without a proxy; the caller closes it."""
        return connect(self.settings)

    def process(self, name: str) -> psutil.Process:
        """The process that is now this part; waits while it is started again."""

        def find() -> psutil.Process | None:
            handle = self._handle(name)
            with suppress(psutil.NoSuchProcess):
                if handle is not None and handle.poll() is None:
                    return psutil.Process(handle.pid)
            return None

        return wait_until(find, timeout_s=_START_S)

    def pids(self) -> dict[str, int]:
        """The processes that run now; of the web server, the one that serves."""
        found = {}
        for name in ("redis", "web", *WORKERS):
            handle = self._handle(name)
            if handle is None or handle.poll() is not None:
                continue
            with suppress(psutil.NoSuchProcess):
                children = psutil.Process(handle.pid).children() if name == "web" else []
                found[name] = children[0].pid if children else handle.pid
        return found

    def kill(self, name: str) -> None:
        """End a part by SIGKILL, with its children; its keeper starts it again."""
        _kill_family(self.process(name).pid)

    def terminate(self, name: str) -> None:
        """End a part by SIGTERM; its keeper starts it again."""
        with suppress(psutil.NoSuchProcess):
            self.process(name).terminate()

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Wait until Redis and the web server answer and every worker holds a lease."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with suppress(redis.RedisError), self.redis() as client:
                names = [f"evascore:lease:{name}@test" for name in WORKERS]
                if client.exists(*names) == len(names):
                    return True
            time.sleep(0.1)
        return False

    def web_of_next_release(self) -> WebServer:
        """A web server of the next release, not started."""
        folder = self._next_release()
        server = WebServer(folder, self.proxies["next"].url)
        server.command = ["env", "-C", str(folder), *server.command[1:]]
        return server

    def worker_of_next_release(self) -> Worker:
        """A worker of the next release, not started; it shares a model with two of ours."""
        worker = self._worker("next", "mine")
        worker.repository = self._next_release()
        if worker.log.exists():
            # Of the last one; this one is ready when its own log says so.
            worker.log.rename(worker.log.with_suffix(f".{time.monotonic_ns()}.log"))
        return worker

    def _next_release(self) -> Path:
        folder = self.folder / "next"
        if not folder.exists():
            copy_repository(folder)
            make_next(folder)
        return folder

    def jump(self, name: str, seconds: float) -> None:
        """Set the clock of a part this far from the true time; 0 sets it right."""
        self._clock(name).write_text(str(seconds))

    def _make_keys(self) -> None:
        owners = ("alice", "bob", "carol", "probes")
        with self.redis() as client:
            store = KeyStore(client)
            for owner in owners:
                limit = QUOTA_PER_MINUTE if owner == "carol" else None
                token, key = new_key(owner, ["score", "bulk"], requests_per_minute=limit)
                store.add(key)
                self.tokens[owner] = token

    def _web_server(self) -> WebServer:
        server = WebServer(
            self.folder, self.proxies["web"].url, model_name="mine", auth="keys", **self._times
        )
        server.command = ["env", *self._clock_variables("web"), *server.command[1:]]
        return server

    def _worker(self, name: str, model: str) -> Worker:
        worker = Worker(
            self.folder,
            self.proxies[name].url,
            name,
            **{**self._times, "model": str(self.checkpoints[model]), "model_name": model},
        )
        variables = dict(each.split("=", 1) for each in self._clock_variables(name))
        # As the product starts its workers.
        worker.arguments += ["--without-gossip", "--without-mingle"]
        # Three workers share the cores.
        worker.environment |= {**variables, "OMP_NUM_THREADS": "1"}
        return worker

    def _clock(self, name: str) -> Path:
        return self.folder / f"{name}.clock"

    def _clock_variables(self, name: str) -> list[str]:
        self.jump(name, 0)
        return [f"PYTHONPATH={CLOCK}", f"CHAOS_CLOCK={self._clock(name)}"]

    def _handle(self, name: str) -> subprocess.Popen[bytes] | WarmProcess | None:
        if name == "redis":
            return self.redis_server.process
        if name == "web":
            return self.web.process if self.web else None
        return self.workers[name].process

    def _starter(self, name: str) -> Callable[[], object]:
        if name == "redis":
            return self.redis_server.start
        if name == "web":
            assert self.web is not None
            return self.web.start
        # An interpreter of its own imports the clock that can jump.
        return self.workers[name].start_cold

    def _keep(self, name: str) -> None:
        """Start a part again whenever it has ended."""
        while not self._ending.wait(0.05):
            handle = self._handle(name)
            if self.is_stopped.get(name) or handle is None or handle.poll() is None:
                continue
            # -9 and -15: killed by a fault. 0: ended on SIGTERM.
            if handle.returncode not in (-9, -15, 0) and name != "redis":
                self.history.deaths.append(f"{name} ended with exit code {handle.returncode}")
            try:
                self._starter(name)()
            except (RuntimeError, redis.RedisError, pytest.fail.Exception):
                # It was killed again; the next round looks at how it ended.
                continue


def _kill_family(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                each.kill()
