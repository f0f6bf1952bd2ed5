"""The kernels compute what their references do, as far as a machine without a GPU can tell."""

import subprocess
import sys
from pathlib import Path

from contract.settings import REPOSITORY

KERNEL_TESTS = Path(__file__).parent / "kernels"


def test_kernels_pass_their_tests_in_the_interpreter():
    """In a process of their own: the interpreter is chosen before triton is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(KERNEL_TESTS)]
    run = subprocess.run(
        ["env", "TRITON_INTERPRET=1", "OMP_WAIT_POLICY=passive", *command],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert "skipped" not in run.stdout
