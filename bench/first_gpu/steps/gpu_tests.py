"""Runs the tests that need a GPU, and records each failure as a figure."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

from bench.first_gpu.project import GPU_TESTS, KERNEL_TESTS, REPOSITORY
from bench.first_gpu.run import Run

MAX_FAILURES = 25
# Of many cores, other parts need some.
MANY_CORES, TEST_PROCESSES = 8, 6
# What is left for reading the report.
REPORT_S = 3.0


def run_kernel_tests(run: Run) -> None:
    """Run the tests that compare the kernels with their references."""
    _run_tests(run, "kernels", [str(KERNEL_TESTS)], is_parallel=True)


def run_other_tests(run: Run) -> None:
    """Run the other tests that need a GPU."""
    ignored = f"--ignore={KERNEL_TESTS}"
    _run_tests(run, "others", [str(GPU_TESTS), ignored], is_parallel=False)


def _run_tests(run: Run, name: str, paths: list[str], *, is_parallel: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-m", "gpu", *paths, f"--junitxml={report}"),
            *("-p", "no:cacheprovider", "--maxfail=40", "--durations=5"),
            # The warnings of versions that the project does not pin are not failures.
            *("-o", "filterwarnings=default"),
        ]
        has_xdist = importlib.util.find_spec("xdist") is not None
        if is_parallel and has_xdist and (os.cpu_count() or 1) > MANY_CORES:
            command += ["-n", str(TEST_PROCESSES)]
        began = time.perf_counter()
        status = _run_and_log(run, command)
        seconds = round(time.perf_counter() - began, 1)
        outcomes = _outcomes(report)
    counts = {kind: len(cases) for kind, cases in outcomes.items()}
    run.put(f"tests: {name}", status=status, seconds=seconds, **counts)
    for case in [*outcomes["failure"], *outcomes["error"]][:MAX_FAILURES]:
        test = f"{case.get('classname')}::{case.get('name')}"
        run.put(f"tests: {name}: FAILED", test=test, message=_message(case))


def _run_and_log(run: Run, command: list[str]) -> int | str:
    """Run pytest within the time that is left; return its status."""
    limit_s = max(run.left_s() - REPORT_S, REPORT_S)
    with (run.folder / "pytest.log").open("ab") as log:
        log.write(f"\n=== {' '.join(command)}\n".encode())
        log.flush()
        try:
            ended = subprocess.run(
                command,
                cwd=REPOSITORY,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "time limit"
    return ended.returncode


def _outcomes(report: Path) -> dict[str, list[ElementTree.Element]]:
    """Return the test cases of a report by outcome; none where pytest did not end."""
    outcomes: dict[str, list[ElementTree.Element]] = defaultdict(list)
    if report.exists():
        for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - pytest's own
            tags = [each.tag for each in case if each.tag in ("failure", "error", "skipped")]
            outcomes[tags[0] if tags else "passed"].append(case)
    return outcomes


def _message(case: ElementTree.Element) -> str:
    messages = [each.get("message") or "" for each in case if each.tag in ("failure", "error")]
    return messages[0][:400]
