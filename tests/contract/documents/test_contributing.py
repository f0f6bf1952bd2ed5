"""CONTRIBUTING.md and the dev containers name commands, files and ports that are there."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from contract.settings import REPOSITORY, load_settings

GUIDE = (REPOSITORY / "CONTRIBUTING.md").read_text()
DEV_CONTAINERS = REPOSITORY / ".devcontainer"


def dev_container(kind: str) -> dict[str, Any]:
    """What a dev container is made of."""
    return json.loads((DEV_CONTAINERS / kind / "devcontainer.json").read_text())


def check_targets(*commands: str) -> None:
    """Have make say what it would do for commands that begin with its name."""
    for command in commands:
        make, *words = shlex.split(command)
        assert make == "make"
        subprocess.run([make, "--dry-run", *words], cwd=REPOSITORY, check=True, capture_output=True)


def test_targets_of_the_guide_exist():
    targets = set(re.findall(r"make [^`\n]+", "\n".join(re.findall(r"`(make [^`]+)`", GUIDE))))
    assert len(targets) > 5
    check_targets(*targets, "make build-dev", "make run")


def test_paths_of_the_guide_exist():
    paths = set(re.findall(r"(?<![\w./-])(\.?[a-z_]+/[\w./-]*)", GUIDE)) - {"http:/"}
    assert len(paths) > 15
    for path in paths - {".venv/bin/python"}:
        assert (REPOSITORY / path).exists(), path


def test_documents_of_the_guide_exist():
    names = re.findall(r"`([A-Z]+\.md|\.env\.example|docker-compose\.yml)`", GUIDE)
    assert names
    assert all((REPOSITORY / name).is_file() for name in names)


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_dev_container_is_built_from_files_that_are_there(kind):
    container = dev_container(kind)
    folder = DEV_CONTAINERS / kind
    assert (folder / container["build"]["dockerfile"]).resolve().is_file()
    check_targets(container["postCreateCommand"])
    assert container["forwardPorts"] == [load_settings({}).port]
    assert set(container["portsAttributes"]) == {str(port) for port in container["forwardPorts"]}


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_user_of_a_dev_container_is_not_root(kind):
    dockerfile = (DEV_CONTAINERS / "Dockerfile").read_text()
    user = dev_container(kind)["remoteUser"]
    assert user != "root"
    assert f"USER {user}\n" in dockerfile
    [mount] = dev_container(kind)["mounts"]
    target = Path(dict(part.split("=") for part in mount.split(","))["target"])
    assert str(target) in dockerfile
    assert target.is_relative_to(f"/home/{user}")


def test_dev_containers_have_the_base_of_the_images():
    bases = {
        re.search(r"^ARG PYTHON_IMAGE=(\S+)", path.read_text(), re.MULTILINE)[1]
        for path in (DEV_CONTAINERS / "Dockerfile", REPOSITORY / "Dockerfile.worker")
    }
    assert len(bases) == 1


def test_dev_containers_differ_in_the_gpu_alone():
    cpu, gpu = dev_container("cpu"), dev_container("gpu")
    assert gpu.pop("runArgs") == ["--gpus", "all"]
    # CUDA comes with torch from PyPI.
    assert "TORCH_INDEX" in cpu.pop("containerEnv")
    assert "TORCH_INDEX" not in gpu.pop("containerEnv")
    for container in (cpu, gpu):
        del container["name"], container["hostRequirements"]
    assert cpu == gpu
