"""Backups on the VM take the volumes that Compose makes."""

import re

import yaml

from contract.settings import REPOSITORY


def test_volumes_that_are_backed_up_are_those_of_compose():
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    script = (REPOSITORY / "deploy" / "vm" / "state").read_text()
    volumes = re.findall(r"\$volumes/(\w+)_([\w-]+)/_data", script)
    assert [project for project, _ in volumes] == [compose["name"]] * len(volumes)
    assert [volume for _, volume in volumes] == ["redis-data", "quantized"]
    assert {volume for _, volume in volumes} <= compose["volumes"].keys()
