"""Every command in the README does what the README says.

`make run` is how the service of this module is started. The commands that follow it run in a shell
against that service, on its port in place of 8000; an answer that stands below a command must be
what comes, but for times and IDs. The make targets that test, measure or rewrite the project are
looked up, not run: the first would run this test.
"""

import itertools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from contract.settings import DEMO_CHECKPOINT, REPOSITORY
from tests.service import Service

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
README = BLOCK.findall((REPOSITORY / "README.md").read_text())
COMMANDS = [body for kind, body in README if kind == "sh"]
SHELL_COMMANDS = [command for command in COMMANDS if not command.startswith("make ")]
TARGETS = [line for command in COMMANDS for line in command.splitlines() if line[:5] == "make "]
ANSWERS = {
    command: orjson.loads(answer)
    for (kind, command), (answer_kind, answer) in itertools.pairwise(README)
    if (kind, answer_kind) == ("sh", "json")
}
# What differs from one run to the next.
FLEETING = {"id", "submitted_at", "deadline_at", "finished_at", "timings_ms", "links"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service that `make run` starts, with the bundled model."""
    service = Service(tmp_path_factory.mktemp("readme"), Path(DEMO_CHECKPOINT))
    yield service.start(["make", "run"])
    service.press_ctrl_c()
    assert service.process is not None
    service.process.wait(60)


@pytest.mark.parametrize("command", SHELL_COMMANDS, ids=lambda command: command.split()[1])
def test_command_works(service, command):
    assert '"log_likelihood_nats":' in run(service, command)


@pytest.mark.parametrize("command", ANSWERS, ids=lambda command: command.split()[1])
def test_answer_is_the_one_shown(service, command):
    answer = orjson.loads(run(service, command))
    shown = lasting(ANSWERS[command])
    assert lasting(answer) == {at: nearly(value) for at, value in shown.items()}, answer
    assert set(names(answer)) == set(names(ANSWERS[command]))


@pytest.mark.parametrize("target", sorted(set(TARGETS)))
def test_make_target_exists(target):
    subprocess.run([*target.split(), "--dry-run"], cwd=REPOSITORY, check=True, capture_output=True)


def test_a_command_starts_the_service_and_another_asks_it():
    assert "make run\n" in COMMANDS
    assert ANSWERS


def run(service: Service, command: str) -> str:
    """What a command of the README writes, run against the service of this module."""
    here = command.replace("localhost:8000", f"127.0.0.1:{service.port}")
    assert "8000" not in here
    return subprocess.run(
        ["bash", "-c", here], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout


def nearly(value: object) -> object:
    """A value that equals `value`, or a float near it: devices round differently."""
    return pytest.approx(value, rel=1e-4) if isinstance(value, float) else value


def names(value: object, at: str = "") -> Iterator[str]:
    """The paths of all fields in a JSON value."""
    if isinstance(value, dict):
        for name, field in value.items():
            yield f"{at}/{name}"
            yield from names(field, f"{at}/{name}")


def lasting(value: object, at: str = "") -> dict[str, object]:
    """Each plain value of a JSON object by its path, without what differs between runs."""
    if not isinstance(value, dict):
        return {at: value}
    found: dict[str, object] = {}
    for name, field in value.items():
        if name not in FLEETING:
            found |= lasting(field, f"{at}/{name}")
    return found
