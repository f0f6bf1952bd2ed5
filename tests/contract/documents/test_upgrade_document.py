"""The page on upgrades: its commands exist, and the tests that it names are there."""

import re
import shlex
import subprocess

import pytest

from contract.settings import REPOSITORY
from tests.unit.deploy.conftest import FakeCommands

DOCUMENT = (REPOSITORY / "docs" / "upgrade.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", "").splitlines()]
OF_GCLOUD = sorted({line for line in LINES if line.startswith("deploy/")})
TARGETS = sorted({line.split()[-1] for line in LINES if line.startswith("make ")})
OTHERS = ("git ", "docker compose ", "kubectl ", "kustomize ", "scancel ", "curl ", "evascore ")


@pytest.mark.parametrize("line", OF_GCLOUD)
def test_command_is_understood(tmp_path, line):
    cloud = FakeCommands(tmp_path)
    cloud.answer("--format=value(status)", stdout="RUNNING\n")
    command, *options = shlex.split(line)
    shown = cloud.run([REPOSITORY / command, *options, "--dry-run"], folder=tmp_path)
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_make_target_exists(target):
    command = ["make", "--dry-run", target]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)


def test_every_other_command_is_of_a_known_program():
    known = (*OTHERS, "make ", "deploy/", "cd deploy/", "../evascore-0.2.0/deploy/slurm/submit ")
    assert [line for line in LINES if not line.startswith(known)] == []
    assert len(OF_GCLOUD) > 1
    assert TARGETS == ["run", "venv"]


def test_options_of_submit_are_those_of_the_guide():
    (ours,) = (line for line in LINES if "slurm/submit" in line)
    guide = (REPOSITORY / "docs/deploy.md").read_text().replace("\\\n", "")
    assert f"\n{ours.removeprefix('../evascore-0.2.0/')}\n" in guide


def test_tests_that_it_names_exist():
    named = re.findall(r"`(tests/[\w/.]+)`", DOCUMENT)
    assert len(named) > 3
    assert [path for path in named if not (REPOSITORY / path).exists()] == []
