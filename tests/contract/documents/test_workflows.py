"""The workflows call make targets that exist, read the repository alone, and name their actions."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from contract.settings import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))


def read(path: Path) -> dict[str, Any]:
    """A workflow; YAML 1.1 reads its key `on` as true."""
    workflow = yaml.safe_load(path.read_text())
    workflow["on"] = workflow.pop(True)
    return workflow


def steps(path: Path) -> list[dict[str, Any]]:
    """The steps of all jobs of a workflow."""
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def commands(path: Path) -> list[str]:
    """What a workflow runs, in order."""
    return [step["run"] for step in steps(path) if "run" in step]


ALL_COMMANDS = sorted({command for path in WORKFLOWS for command in commands(path)})


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_command_is_a_make_target(command):
    assert re.fullmatch(r"make [a-z-]+", command)
    subprocess.run([*command.split(), "--dry-run"], cwd=REPOSITORY, check=True, capture_output=True)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_may_only_read_and_ends_in_time(path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert 0 < job["timeout-minutes"] <= 90


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_major_version(path):
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used)


@pytest.mark.parametrize(
    ("event", "command"),
    [
        ("push", "make lint"),
        ("push", "make test-unit"),
        ("pull_request", "make test"),
        ("schedule", "make test-docker"),
    ],
)
def test_event_runs_the_command(event, command):
    assert any(event in read(path)["on"] and command in commands(path) for path in WORKFLOWS)
