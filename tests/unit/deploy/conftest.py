"""Fake commands, first on the PATH of those that a test runs."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from contract.settings import REPOSITORY

FAKES = REPOSITORY / "tests" / "fakes"


class FakeCommands:
    """The fakes' folder of one test: what they were called with, what they answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vm = folder / "vm"
        self.vm.mkdir()
        self._answers = folder / "answers"
        self._answers.mkdir()

    @property
    def env(self) -> dict[str, str]:
        """The environment in which the fakes come first."""
        path = f"{FAKES}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        ours = {"PATH": path, "FAKES": str(self.folder)}
        return {**os.environ, **ours}

    def answer(self, match: str, **answer: str | int) -> None:
        """Have every call whose words contain `match` answered so; see tests/fakes/gcloud."""
        folder = self._answers / f"{len(list(self._answers.iterdir())):03}"
        folder.mkdir()
        for name, value in {
            "match": match,
            "stdout": "",
            "stderr": "",
            "code": 0,
            **answer,
        }.items():
            (folder / name).write_text(str(value))

    @property
    def calls(self) -> list[str]:
        """The command lines so far, in order."""
        calls = self.folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    def run(
        self,
        command: Sequence[str | Path],
        timeout_s: float = 30,
        folder: Path = REPOSITORY,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run one of our commands to its end, in `folder`."""
        return subprocess.run(
            [str(word) for word in command],
            cwd=folder,
            env={**self.env, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


@pytest.fixture
def cloud(tmp_path: Path) -> FakeCommands:
    """Fakes of this test's own."""
    folder = tmp_path / "cloud"
    folder.mkdir()
    return FakeCommands(folder)
