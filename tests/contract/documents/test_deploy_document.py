"""The commands in docs/deploy.md: those of ours exist and take the options that stand there."""

import re
import shlex

import pytest

from bench import first_hour
from contract.settings import REPOSITORY
from tests.unit.deploy.conftest import FakeCommands

DOCUMENT = (REPOSITORY / "docs" / "deploy.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", "").splitlines()]
OURS = [line for line in LINES if line.startswith("deploy/") and "slurm" not in line]


@pytest.mark.parametrize("line", OURS, ids=lambda line: " ".join(line.split()[:2]))
def test_command_is_understood(tmp_path, line):
    cloud = FakeCommands(tmp_path)
    cloud.answer("--format=value(status)", stdout="RUNNING\n")
    command, *options = shlex.split(line)
    # In an empty folder: data that lies in the repository is not to be touched or minded.
    shown = cloud.run([REPOSITORY / command, *options, "--dry-run"], folder=tmp_path)
    assert shown.returncode == 0, shown.stderr


def test_every_command_is_documented():
    commands = [path for path in (REPOSITORY / "deploy" / "gcp").iterdir() if not path.suffix]
    for path in [*commands, REPOSITORY / "deploy" / "slurm" / "submit"]:
        if path.is_file() and path.name != "logs":
            assert str(path.relative_to(REPOSITORY)) in DOCUMENT


def test_workers_of_a_fleet_use_no_cpu():
    (line,) = (line for line in LINES if "celery -A worker.main" in line)
    assert "EVASCORE_DEVICE=cuda" in line.split()


def test_times_of_the_notice_are_those_of_the_unit():
    unit = (REPOSITORY / "deploy" / "vm" / "evascore.service").read_text()
    for pattern in (r"stop --timeout (\d+)$", r"^TimeoutStopSec=(\d+)$"):
        (seconds,) = re.findall(pattern, unit, flags=re.MULTILINE)
        assert f"| + {seconds} s |" in DOCUMENT


@pytest.mark.parametrize("table", [first_hour.phase_table(), first_hour.total_table()])
def test_budget_is_what_the_script_computes(table):
    assert table in DOCUMENT


def test_minutes_in_the_text_are_those_of_the_table():
    ranges = [first_hour.total_s(start_s, 250) for start_s in first_hour.start_s()]
    bare, again = (f"{fast / 60:.0f} to {slow / 60:.0f}" for slow, fast in ranges)
    assert f"{bare} minutes on a bare L4 VM and {again} on a warm one" in DOCUMENT


def test_phases_of_the_budget_are_phases_that_a_worker_tells():
    reply = re.findall(r"^\| `(\w+)` \|", (REPOSITORY / "docs/api.md").read_text(), re.MULTILINE)
    named = {name for phase in first_hour.phases() for name in re.findall(r"`(\w+)`", phase.name)}
    assert named
    assert named <= set(reply)
