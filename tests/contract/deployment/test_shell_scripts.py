"""Every shell script: clean by shellcheck, strict about failures, executable, with a sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

from contract.settings import REPOSITORY

SHELLCHECK = Path(sys.executable).with_name("shellcheck")


def first_line(path: Path) -> bytes:
    """The first line of a file, without its end."""
    with path.open("rb") as file:
        return file.readline(80).rstrip()


def scripts() -> list[Path]:
    """All files of the repository that a shell runs."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = [REPOSITORY / name for name in listed.split("\0") if name]
    return sorted(path for path in paths if path.is_file() and is_script(path))


def is_script(path: Path) -> bool:
    first = first_line(path)
    return first.startswith(b"#!") and first.endswith((b"/sh", b" bash", b"/bash"))


SCRIPTS = scripts()


def test_scripts_are_clean():
    command = [SHELLCHECK, "--external-sources", *SCRIPTS]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_script_stops_at_a_failure_and_says_what_it_is_for(script):
    lines = script.read_text().splitlines()
    assert lines[1].startswith("# ")
    if script.parent.name != "fakes":
        assert "set -euo pipefail" in lines or ("set -eu" in lines and lines[0] == "#!/bin/sh")
