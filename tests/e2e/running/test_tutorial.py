"""Every block of Python and each command after the preparation does what the tutorial says.

The service of the tutorial is started by its own command, with the tiny model in place of EvaByte.
The blocks that follow run in their order and in the folder that the reader is in. The virtual
environment that the tutorial makes gets its packages from this one, because tests have no network.
"""

import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from contract.settings import REPOSITORY
from tests.service import TINY_CHECKPOINT, Service

TUTORIAL = (REPOSITORY / "docs/tutorial.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)
COUNT = 700
# Prepares a machine: root's commands, and an address that each reader gets from somewhere else.
PREPARING = re.compile(r"sudo apt-get (update|install --yes [\w -]+)|git clone ADDRESS evascore")


class Reader:
    """A person who follows the tutorial: a folder, a shell and a virtual environment."""

    def __init__(self, service: Service, home: Path) -> None:
        """Begin in the clone, with `home` as the home folder."""
        self.service, self.folder = service, REPOSITORY
        path = f"{Path(sys.executable).parent}:{service.environment()['PATH']}"
        self.environment = {
            **{"HOME": str(home), "PATH": path, "EVASCORE_URL": service.url, "COUNT": str(COUNT)},
            # pip takes what this environment has, its build tools too, and asks no index.
            "PYTHONPATH": sysconfig.get_path("purelib"),
            **{"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "false"},
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def run(self, kind: str, code: str) -> subprocess.CompletedProcess[str]:
        """Run a block to its end."""
        command = ["bash", "-ec", code] if kind == "sh" else ["python", "-c", code]
        return subprocess.run(
            ["env", *command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def activate(self, environment: Path) -> None:
        """Go on in a virtual environment, as its activate script would."""
        self.folder = environment
        self.environment["PATH"] = f"{environment}/bin:{self.environment['PATH']}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service that the tutorial starts."""
    (command,) = (code for kind, code in BLOCKS if kind == "sh" and "make run" in code)
    assert command.count("EvaByte/EvaByte") == 1
    ours = command.replace("EvaByte/EvaByte", str(TINY_CHECKPOINT))
    service = Service(tmp_path_factory.mktemp("service"))
    yield service.start(["bash", "-c", ours])
    service.press_ctrl_c()
    assert service.process is not None
    service.process.wait(60)


def worker_of(service: Service) -> psutil.Process:
    """The worker, which `make` has not started itself."""
    (worker,) = (each for each in service.descendants() if "celery" in " ".join(each.cmdline()))
    return worker


def test_job_of_the_tutorial_ends_with_a_file_of_scores(service, tmp_path):
    reader = Reader(service, tmp_path)
    scoring = tmp_path / "scoring"
    following = [(kind, code) for kind, code in BLOCKS if kind and "make run" not in code]
    assert {kind for kind, _ in following} == {"sh", "python"}
    for kind, code in following:
        is_interrupted = code.startswith("timeout --signal=INT")
        if is_interrupted:
            # So that no machine is fast enough to score everything before the interruption.
            worker_of(service).suspend()
        ran = reader.run(kind, code)
        if is_interrupted:
            worker_of(service).resume()
            assert ran.returncode == 124, ran.stderr
            assert not (scoring / "scores.parquet").exists()
        elif "--resume" in code:
            assert ran.returncode == 4, ran.stderr
            assert f"complete: {COUNT + 2} lines, 2 of them with an error" in ran.stderr
        else:
            assert ran.returncode == 0, (code, ran.stdout, ran.stderr)
        if "source bin/activate" in code:
            reader.activate(scoring)
            assert (scoring / "bin/evascore").exists()
    assert f"{COUNT + 2} rows, " in reader.run("python", blocks("python")[0]).stdout
    assert f"of {COUNT} texts, from " in reader.run("python", blocks("python")[-1]).stdout
    assert (scoring / "kept.parquet").exists()


def blocks(kind: str) -> list[str]:
    """The blocks of a language, in their order."""
    return [code for each, code in BLOCKS if each == kind]


def test_other_blocks_only_prepare_the_machine():
    lines = [line for block in blocks("") for line in block.splitlines()]
    assert lines
    assert all(PREPARING.fullmatch(line) for line in lines)
