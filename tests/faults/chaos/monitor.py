"""Samples the memory, descriptors and threads of each process while a run goes on."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.faults.chaos.history import now

_EVERY_S = 2.0


class Sample(NamedTuple):
    """One process at one time."""

    at: float
    """Unix time, seconds."""
    name: str
    pid: int
    rss_mib: int
    num_fds: int
    num_threads: int


class Monitor:
    """Samples the processes that `find` names until `stop`, into a file of tab-separated lines."""

    def __init__(self, find: Callable[[], dict[str, int]], path: Path) -> None:
        """Prepare; `start` begins to sample."""
        self._find, self._path = find, path
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        with self._path.open("w") as file:
            while not self._ending.wait(_EVERY_S):
                for name, pid in self._find().items():
                    found = sample(name, pid)
                    if found is not None:
                        file.write("\t".join(map(str, found)) + "\n")
                file.flush()


def sample(name: str, pid: int) -> Sample | None:
    """The process as it is now; None if it has ended."""
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process = psutil.Process(pid)
        with process.oneshot():
            rss_mib = process.memory_info().rss >> 20
            return Sample(now(), name, pid, rss_mib, process.num_fds(), process.num_threads())
    return None
