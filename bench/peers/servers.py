"""Starts the servers to compare, one at a time, each on a free port with the same model."""

import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import psutil

from contract.settings import REPOSITORY, Settings
from deploy.embedded_redis import free_port
from tests.service import COMMAND, Service

# `make bench-peers` makes it; it finds the packages of the model in ours.
PEERS_PYTHON = REPOSITORY / ".venv-peers" / "bin" / "python"
PEERS_PACKAGES = Path(sysconfig.get_path("purelib", vars={"base": str(REPOSITORY / ".venv-peers")}))
START_LIMIT_S = 180.0
STOP_LIMIT_S = 10.0
POLL_S = 0.1


@dataclass(frozen=True)
class Server:
    """A server that is ready."""

    port: int
    root: psutil.Process
    """All processes of the server descend from this one."""
    parts: Mapping[str, psutil.Process]
    """Processes whose CPU time is listed separately; each with its descendants."""


class NotReady(Exception):
    """A server did not start."""


@contextmanager
def evascore(folder: Path, model: Path, is_costless: bool) -> Iterator[Server]:
    """evascore as `make run` starts it: embedded Redis, a web server and a worker."""
    service = Service(folder, model)
    costless = (sys.executable, "-m", "bench.peers.costless_service")
    service.start(costless if is_costless else COMMAND, timeout_s=START_LIMIT_S)
    try:
        assert service.process is not None
        parts = {name: service.part(name) for name in ("web", "worker", "redis")}
        yield Server(service.port, psutil.Process(service.process.pid), parts)
    finally:
        service.stop()


@contextmanager
def litserve(folder: Path, model: Path, is_costless: bool) -> Iterator[Server]:
    """LitServe with one web process and one process that scores."""
    texts = Settings.model_fields["micro_batch_texts"].default
    arguments = [*_arguments(model, is_costless), "--max-batch-texts", str(texts)]
    with started([str(PEERS_PYTHON), "-m", "bench.peers.litserve_server", *arguments], folder) as s:
        yield s


@contextmanager
def fastapi(folder: Path, model: Path, is_costless: bool) -> Iterator[Server]:
    """FastAPI under Uvicorn, which is one process."""
    arguments = _arguments(model, is_costless)
    with started([str(PEERS_PYTHON), "-m", "bench.peers.fastapi_server", *arguments], folder) as s:
        yield s


@contextmanager
def flask(folder: Path, model: Path, is_costless: bool) -> Iterator[Server]:
    """Flask under Gunicorn, which answers without scoring."""
    command = [sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--threads", "64"]
    with started([*command, "bench.peers.flask_server:app"], folder, "--bind=127.0.0.1:{}") as s:
        yield s


Starter = Callable[[Path, Path, bool], AbstractContextManager[Server]]
STARTERS: dict[str, Starter] = {
    "evascore": evascore,
    "litserve": litserve,
    "fastapi": fastapi,
    "flask": flask,
}


def _arguments(model: Path, is_costless: bool) -> list[str]:
    return ["--model", str(model), *(["--costless"] if is_costless else [])]


@contextmanager
def started(command: Sequence[str], folder: Path, bind: str = "--port={}") -> Iterator[Server]:
    """A server that this command starts on a free port; its log is in `folder`. Raises: NotReady"""
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            # As evascore's worker runs: waiting threads that spin would take a core.
            ["env", "OMP_WAIT_POLICY=passive", *command, bind.format(port)],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_it_answers(process, port, folder / "log")
        root = psutil.Process(process.pid)
        yield Server(port, root, {})
    finally:
        _stop(process)


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    headers = {"Content-Type": "application/json"}
    request = Request(f"http://127.0.0.1:{port}/score", b'{"text": "ready?"}', headers)
    while True:
        try:
            with urlopen(request, timeout=START_LIMIT_S):
                return
        except (URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotReady(log.read_text(errors="replace")[-2000:]) from None
            time.sleep(POLL_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # What it left behind has its process group.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
