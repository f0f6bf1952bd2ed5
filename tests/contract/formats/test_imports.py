"""The direction of imports: the linter's contracts hold, and the web tier runs without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from contract.settings import REPOSITORY

HEAVY = ("torch", "transformers", "triton", "numpy", "model", "worker")


def test_contracts_of_the_import_linter_hold():
    # In a process of its own: it reconfigures logging for all tests that follow.
    linter = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run([linter], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("module", ["app.wsgi", "contract.store.jobs.job_store", "deploy.run"])
def test_module_runs_without_the_model(module):
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules, sep='\\n')"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert module in loaded
    assert not [name for name in HEAVY if name in loaded]


def test_client_runs_without_the_service():
    code = "import sys, evascore; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY / "client",
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert "httpx" in loaded
    service = {"app", "contract", "celery", "redis", "flask", "pydantic"}
    assert not {*HEAVY, *service}.intersection(loaded)


@pytest.mark.parametrize(
    "module", ["deploy.backup", "deploy.gcp.keep_alive", "deploy.vm.preemption"]
)
def test_command_for_bare_machines_needs_python_alone(module):
    # -S: no packages but Python's own.
    command = [sys.executable, "-S", "-m", module, "--help"]
    helped = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert helped.returncode == 0, helped.stderr
