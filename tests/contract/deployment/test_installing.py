"""The pinned packages install on every platform of the README, and all have hashes but torch."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from contract.settings import REPOSITORY
from tests.conftest import HANG_S

FILES = ("requirements.txt", "requirements-web.txt", "requirements-dev.txt", "constraints.txt")
LOCKS = {path.stem: path.read_text() for path in sorted(REPOSITORY.glob("requirements*.lock"))}
# What the locks leave out: builds of torch differ between machines, and CUDA is part of them.
UNLOCKED = re.compile(r"torch|evascore|nvidia-(?!ml-py$).*|cuda-.*")
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
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG_S)
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


def locked(lock: str) -> dict[str, str]:
    """Name and version of each package of a lock file on this platform."""
    found = re.findall(r"^([a-z0-9-]+)==(\S+)(?: ; (.*))? \\$", LOCKS[lock], re.MULTILINE)
    return {
        name: version for name, version, marker in found if not marker or Marker(marker).evaluate()
    }


def pinned(*files: str) -> dict[str, str]:
    """Name and version of each package that the files pin, if a lock may have it."""
    lines = [line for name in files for line in (REPOSITORY / name).read_text().splitlines()]
    pins = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    pins = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    named = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    return {name: v for name, v in named.items() if not UNLOCKED.fullmatch(name)}


def test_every_list_of_packages_has_a_lock():
    assert set(LOCKS) == {path.stem for path in REPOSITORY.glob("requirements*.txt")}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes_and_none_is_torch(lock):
    packages = re.split(r"\n(?=\S)", LOCKS[lock].strip())
    assert len(packages) > 20
    for package in packages:
        name, *hashes = re.split(r" \\\n *", package)
        assert re.match(r"[a-z0-9-]+==\S+( ; .*)?$", name)
        assert hashes
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", one) for one in hashes)
    assert not [name for name in locked(lock) if UNLOCKED.fullmatch(name)]


@pytest.mark.parametrize(
    ("lock", "files"),
    [
        ("requirements-web", ["requirements-web.txt"]),
        ("requirements", ["requirements-web.txt", "requirements.txt"]),
        ("requirements-dev", FILES),
        ("requirements-lm-eval", ["requirements-lm-eval.txt"]),
        ("requirements-schemathesis", ["requirements-schemathesis.txt"]),
        ("requirements-audit", ["requirements-audit.txt"]),
        ("requirements-flower", ["requirements-flower.txt"]),
        ("requirements-locust", ["requirements-locust.txt"]),
        ("requirements-otel", ["requirements-web.txt", "requirements-otel.txt"]),
    ],
)
def test_lock_has_the_pinned_versions(lock, files):
    wanted, found = pinned(*files), locked(lock)
    assert {name: found.get(name) for name in wanted} == wanted, "run make lock"


def test_what_a_lock_brings_along_is_pinned_too():
    pins = pinned(*FILES)
    for lock in ("requirements-web", "requirements", "requirements-dev"):
        marked = set(re.findall(r"^([a-z0-9-]+)==\S+ ; ", LOCKS[lock], re.MULTILINE))
        # Those of other platforms cannot be seen here; torch alone asks for setuptools.
        assert set(locked(lock)) - marked - {"setuptools"} <= set(pins), "run make constraints"


def test_what_is_installed_is_what_is_locked():
    # The environment of the tests is made from this lock.
    for name, version in locked("requirements-dev").items():
        with suppress(PackageNotFoundError):
            assert distribution(name).version == version


@pytest.mark.parametrize("platform", ["Linux x86-64", "Linux arm64", "macOS arm64"])
def test_readme_names_the_platform(platform):
    assert platform in (REPOSITORY / "README.md").read_text()


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with the Makefile and a Python that installs nothing."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for name in (*FILES, "requirements.lock", "requirements-dev.lock"):
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


def test_web_server_imports_only_what_its_lock_has():
    """In the development environment a package that the web image lacks would not be missed."""
    here = {"evascore", *locked("requirements-web")}
    lacking = [
        module
        for module, packages in packages_distributions().items()
        if not here & {canonicalize_name(each) for each in packages}
    ]
    code = (
        "import sys; sys.modules.update(dict.fromkeys(sys.argv[1:]));"
        "import gunicorn.app.wsgiapp, app.server.gunicorn_worker, app.factory"
    )
    command = [sys.executable, "-c", code, *lacking]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "packaging" not in lacking
    assert "pytest" in lacking
