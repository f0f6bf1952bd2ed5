"""Starts workers of tests as forks of a process that has imported PyTorch and transformers once.

The import takes several seconds of computing, most of a worker's start. After the fork all is as in
a process of its own: Celery's command line, the settings, the model, the signals and the exit.
`tests/service.py` starts its workers as the product does, imports included.
"""

import atexit
import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from contract.settings import REPOSITORY

_FORKS = multiprocessing.get_context("forkserver")
_IMPORTS = "tests.warm_imports"
_FORKS.set_forkserver_preload([_IMPORTS])


class WarmProcess:
    """A process with the methods of `subprocess.Popen` that tests need."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Run the module `arguments[0]` as the main program; append its standard error to `log`.

        It ends with pytest at the latest.
        """
        self._process = _FORKS.Process(
            target=_run, args=(list(arguments), dict(environment), log), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or the negative number of a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return `returncode`."""
        return self.returncode

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until it ends; return its exit code."""
        self._process.join(timeout_s)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout_s or 0)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            # The server of the forks may have reaped it already.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _run(arguments: list[str], environment: dict[str, str], log: Path) -> None:
    # Fails here if it could not be imported, which the server of the forks ignores.
    importlib.import_module(_IMPORTS)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(REPOSITORY)
    if num_threads := environment.get("OMP_NUM_THREADS"):
        # OpenMP has read its variables before the fork.
        import torch

        torch.set_num_threads(int(num_threads))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), 2)
    sys.argv = arguments
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    finally:
        # A fork ends without them.
        atexit._run_exitfuncs()
