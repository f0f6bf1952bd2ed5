"""What a VM runs at each boot: images first, then the service, and how long each took."""

import re
import shutil

import pytest

from contract.settings import REPOSITORY


@pytest.fixture
def start(cloud, tmp_path):
    """Runs the start of a copy of ours on the VM, with a docker that answers or does not."""
    root = tmp_path / "evascore"
    shutil.copytree(REPOSITORY / "deploy" / "vm", root / "deploy" / "vm")
    fakes = tmp_path / "fakes"
    fakes.mkdir()

    def run(failing: str = "nothing"):
        fake = fakes / "docker"
        fake.write_text(f'#!/bin/sh\necho "docker $*"\ncase "$*" in *{failing}*) exit 1 ;; esac\n')
        fake.chmod(0o755)
        return cloud.run([root / "deploy/vm/start"], PATH=f"{fakes}:{cloud.env['PATH']}")

    return run


def test_start_says_when_images_were_built_and_when_it_scores(start):
    run = start()
    assert run.returncode == 0, run.stderr
    assert re.sub(r"\d+ s$", "N s", run.stdout, flags=re.MULTILINE).splitlines() == [
        "docker compose build",
        "evascore-start: images built after N s",
        "docker compose up --detach --wait",
        "evascore-start: scoring after N s",
    ]


def test_images_are_built_until_they_are_and_then_no_registry_is_needed(start):
    assert start(failing="build").returncode == 1
    assert "compose build" in start(failing="up").stdout
    again = start(failing="build")
    assert again.returncode == 0
    assert "compose build" not in again.stdout


def test_unit_finds_the_compose_files_that_the_settings_name():
    # Compose takes the paths in COMPOSE_FILE as relative to the current folder.
    unit = (REPOSITORY / "deploy/vm/evascore.service").read_text()
    (folder,) = re.findall(r"^WorkingDirectory=(.*)$", unit, re.MULTILINE)
    assert f"ExecStart={folder}/deploy/vm/start\n" in unit
    assert f"--project-directory {folder} stop" in unit


def test_start_that_failed_is_repeated():
    # systemd ends with ExecStop, which drains, only what it has started.
    unit = (REPOSITORY / "deploy/vm/evascore.service").read_text().splitlines()
    assert {"Type=oneshot", "Restart=on-failure"} <= set(unit)
