"""What a VM runs at each boot: images first, then the service, and how long each took."""

import re

from contract.settings import REPOSITORY


def test_start_says_when_images_were_built_and_when_it_scores(cloud, tmp_path):
    fake = tmp_path / "docker"
    fake.write_text('#!/bin/sh\necho "docker $*"\n')
    fake.chmod(0o755)
    run = cloud.run([REPOSITORY / "deploy/vm/start"], PATH=f"{tmp_path}:{cloud.env['PATH']}")
    assert run.returncode == 0, run.stderr
    assert re.sub(r"\d+ s$", "N s", run.stdout, flags=re.MULTILINE).splitlines() == [
        "docker compose build",
        "evascore-start: images built after N s",
        "docker compose up --detach --wait",
        "evascore-start: scoring after N s",
    ]
