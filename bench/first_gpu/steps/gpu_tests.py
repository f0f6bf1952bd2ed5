"""Runs the tests that need a GPU, and records each failure as a figure."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench.first_gpu.project import GPU_TESTS, KERNEL_TESTS, REPOSITORY
from bench.first_gpu.run import Run

# All kernels together, and the products that differ most between GPUs.
FIRST_FILES = (
    *("test_whole_model.py", "test_quantized_products.py"),
    *("test_int8_linear.py", "test_fp8_linear.py"),
)
MAX_FAILURES = 25
# Of many cores, other parts need some.
MANY_CORES, TEST_PROCESSES, THREADS_PER_PROCESS = 8, 6, 2
# What is left for the figures.
FIGURES_S = 3.0


def run_kernel_tests(run: Run) -> None:
    """Run the tests that compare the kernels with their references."""
    run_tests(run, "kernels", kernel_test_files(), is_parallel=True)


def kernel_test_files() -> list[str]:
    """Return the files of these tests, those first that say most where time runs out."""
    names = {path.name for path in KERNEL_TESTS.glob("test_*.py")}
    assert names.issuperset(FIRST_FILES)
    return [str(KERNEL_TESTS / name) for name in (*FIRST_FILES, *sorted(names - set(FIRST_FILES)))]


def run_other_tests(run: Run) -> None:
    """Run the other tests that need a GPU."""
    ignored = f"--ignore={KERNEL_TESTS}"
    run_tests(run, "others", [str(GPU_TESTS), ignored], is_parallel=False)


def run_tests(run: Run, name: str, paths: list[str], *, is_parallel: bool) -> None:
    """Run the tests of `paths` in the time that is left; put what each one that ended came to."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes_file = Path(folder) / "outcomes.jsonl"
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-m", "gpu", *paths),
            *("-p", "bench.first_gpu.outcomes", "--outcomes", str(outcomes_file)),
            *("-p", "no:cacheprovider", "--maxfail=40", "--durations=5"),
            # The warnings of versions that the project does not pin are not failures.
            *("-o", "filterwarnings=default"),
        ]
        has_xdist = importlib.util.find_spec("xdist") is not None
        if is_parallel and has_xdist and (os.cpu_count() or 1) > MANY_CORES:
            # Otherwise PyTorch takes all cores for the references of each process.
            threads = f"OMP_NUM_THREADS={THREADS_PER_PROCESS}"
            command = ["env", threads, *command, "-n", str(TEST_PROCESSES)]
        began = time.perf_counter()
        status = _run_and_log(run, command)
        seconds = round(time.perf_counter() - began, 1)
        outcomes = _read_outcomes(outcomes_file)
    counts = Counter(each["outcome"] for each in outcomes)
    run.put(f"tests: {name}", status=status, seconds=seconds, **counts)
    failures = [each for each in outcomes if each["outcome"] == "failed"]
    for failure in failures[:MAX_FAILURES]:
        run.put(f"tests: {name}: FAILED", test=failure["test"], message=failure["message"])


def _run_and_log(run: Run, command: list[str]) -> int | str:
    """Run pytest within the time that is left; return its status."""
    limit_s = max(run.left_s() - FIGURES_S, FIGURES_S)
    with (run.folder / "pytest.log").open("ab") as log:
        log.write(f"\n=== {' '.join(command)}\n".encode())
        log.flush()
        pytest = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT, process_group=0
        )
        try:
            return pytest.wait(limit_s)
        except subprocess.TimeoutExpired:
            return "time limit"
        finally:
            if pytest.poll() is None:
                # Those of pytest-xdist too, which would disturb what is measured next.
                os.killpg(pytest.pid, signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pytest.wait(FIGURES_S)


def _read_outcomes(file: Path) -> list[dict[str, Any]]:
    """Return the outcomes of tests that ended; none where pytest did not start."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
