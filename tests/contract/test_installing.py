"""The pinned packages install on every platform of the README; a download of CUDA is announced."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

from contract.settings import REPOSITORY

FILES = ("requirements.txt", "requirements-web.txt", "requirements-dev.txt", "constraints.txt")
# Of the platforms that the README names: their wheel tags, and what environment markers see.
PLATFORMS = {
    f"linux-{machine}": (
        [f"manylinux2014_{machine}", *(f"manylinux_2_{minor}_{machine}" for minor in range(5, 29))],
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine},
    )
    for machine in ("x86_64", "aarch64")
} | {
    "macos-arm64": (
        ["macosx_14_0_arm64"],
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
    )
}
PYTHON = "3.11"
# pip's words where no package index answers.
AWAY = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ReadTimeoutError")


def pins(platform: str) -> list[str]:
    """All pinned packages that the platform installs, without their markers."""
    _, markers = PLATFORMS[platform]
    environment = {**default_environment(), "python_version": PYTHON, **markers}
    lines = [line for name in FILES for line in (REPOSITORY / name).read_text().splitlines()]
    required = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    return sorted(
        {
            f"{one.name}{one.specifier}"
            for one in required
            if one.marker is None or one.marker.evaluate(environment)
        }
    )


def is_for_any_platform(pin: str) -> bool:
    """Whether the wheel that is installed here would install on every platform."""
    name, _, version = pin.partition("==")
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        return False
    tags = installed.read_text("WHEEL") or ""
    return installed.version == version and "Tag: py3-none-any" in tags


def resolve(platform: str, folder: Path, *packages: str) -> str | None:
    """Why pip finds no wheel for one of the packages; None if it finds all. Downloads none.

    Skips the test where no package index answers.
    """
    tags, _ = PLATFORMS[platform]
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--timeout", "15"),
        *("--retries", "1", "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed"),
        *("--only-binary", ":all:", "--python-version", PYTHON, "--target", str(folder)),
        *(word for tag in tags for word in ("--platform", tag)),
        *packages,
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    if found.returncode and any(word in found.stderr for word in AWAY):
        pytest.skip("no package index answers: the pins cannot be resolved")
    return found.stderr if found.returncode else None


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_pinned_package_has_a_wheel(platform, tmp_path):
    packages = [pin for pin in pins(platform) if not is_for_any_platform(pin)]
    assert len(packages) > 20
    refusal = resolve(platform, tmp_path, *packages)
    assert refusal is None, refusal


def test_package_without_a_wheel_is_noticed(tmp_path):
    assert "triton" not in {pin.partition("==")[0] for pin in pins("macos-arm64")}
    (triton,) = (pin for pin in pins("linux-x86_64") if pin.startswith("triton=="))
    assert f"No matching distribution found for {triton}" in str(
        resolve("macos-arm64", tmp_path, triton)
    )


@pytest.mark.parametrize("platform", ["Linux x86-64", "Linux arm64", "macOS arm64"])
def test_readme_names_the_platform(platform):
    assert platform in (REPOSITORY / "README.md").read_text()


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with the Makefile and a Python that installs nothing."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for name in FILES:
        (tmp_path / name).touch()
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        'if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi\n'
    )
    python.chmod(0o755)
    return tmp_path


def make_venv(checkout: Path, **variables: str) -> str:
    """What `make venv` prints under these variables of the Makefile."""
    given = {"PYTHON": str(checkout / "python"), "SYSTEM": "Linux", "NVIDIA_SMI": "", **variables}
    made = subprocess.run(
        ["make", "venv", *(f"{name}={value}" for name, value in given.items())],
        cwd=checkout,
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stderr == ""
    return made.stdout


def test_download_of_cuda_is_announced_with_the_command_that_spares_it(checkout):
    printed = make_venv(checkout)
    assert "2.7 GB to download" in printed
    assert "  make venv TORCH_INDEX=https://download.pytorch.org/whl/cpu\n" in printed


@pytest.mark.parametrize(
    "variables",
    [{"SYSTEM": "Darwin"}, {"NVIDIA_SMI": "/usr/bin/nvidia-smi"}, {"TORCH_INDEX": "file:///cpu"}],
    ids=["macOS", "GPU", "index given"],
)
def test_nothing_is_announced_where_cuda_is_used_or_does_not_come(checkout, variables):
    assert "CUDA" not in make_venv(checkout, **variables)


def test_nothing_is_announced_where_torch_is_installed_already(checkout):
    (checkout / ".venv/lib/python3.11/site-packages/torch").mkdir(parents=True)
    assert "CUDA" not in make_venv(checkout)
