"""A pytest plugin: writes the outcome of each test to a file as soon as the test ends.

pytest writes its own report when all tests have ended: a run that crashed or was killed has none.
"""

import json
from pathlib import Path
from typing import Any

MAX_MESSAGE_CHARS = 400


class Outcomes:
    """The outcomes in a file of lines of JSON."""

    def __init__(self, path: Path) -> None:
        """Write to the file at `path`."""
        self._path = path

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note a test that was computed, was skipped, or failed before or after it."""
        if report.when == "call" or not report.passed:
            line = {"test": report.nodeid, "outcome": report.outcome, "message": _message(report)}
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def pytest_addoption(parser: Any) -> None:
    """Add `--outcomes FILE`."""
    parser.addoption("--outcomes", type=Path, metavar="FILE")


def pytest_configure(config: Any) -> None:
    """Write outcomes where pytest-xdist, if it is used, gathers those of all its processes."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(config.getoption("--outcomes")))


def _message(report: Any) -> str:
    if not report.failed:
        return ""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(report.longreprtext if crash is None else crash.message)[:MAX_MESSAGE_CHARS]
