"""A real Docker engine with the whole service on it; `make test-docker` runs this folder."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from contract.settings import REPOSITORY
from deploy.embedded_redis import free_port
from tests.conftest import wait_until

BUILD_S = 3600
START_S = 300
RECOVERY_S = 120


class Stack:
    """The Compose project of the tests, without a GPU, on a free port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def compose(self, *words: str, timeout_s: float = START_S) -> str:
        """Run `docker compose` with these words; what it wrote to stdout."""
        command = [
            *("env", f"WEB_PORT={self.port}", "docker", "compose"),
            *("--project-name", "evascore-test"),
            *("-f", "docker-compose.yml", "-f", "compose.cpu.yml"),
        ]
        return output(*command, *words, timeout_s=timeout_s)

    def up(self, *words: str) -> None:
        """Start what does not run, and return when all of it is healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", str(START_S), *words)

    def container(self, service: str) -> str:
        """The ID of the only container of a service."""
        (container,) = self.compose("ps", "--quiet", service).split()
        return container

    def run_in(self, service: str, *command: str) -> str:
        """What a command writes in the container of a service."""
        return output("docker", "exec", self.container(service), *command)

    def crash(self, service: str) -> None:
        """Kill a service's first process from outside, and return when it is healthy again.

        Docker takes `docker kill` for the wish that it stay down.
        """
        container = self.container(service)
        before = inspect(container)
        subprocess.run(["kill", "-9", str(before["State"]["Pid"])], check=True)
        wait_until(
            lambda: (
                (now := inspect(container))["RestartCount"] > before["RestartCount"]
                and now["State"]["Health"]["Status"] == "healthy"
            ),
            timeout_s=RECOVERY_S,
            every_s=0.5,
        )

    def client(self) -> httpx.Client:
        """An HTTP client of this service; the caller closes it."""
        return httpx.Client(base_url=self.url, timeout=60)


def output(*command: str, timeout_s: float = START_S) -> str:
    """What a command writes to stdout; the test fails with its stderr if it fails."""
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def inspect(name: str) -> dict[str, Any]:
    """What the engine knows of a container or an image."""
    (found,) = json.loads(output("docker", "inspect", name))
    return found


@pytest.fixture(scope="session")
def images() -> Stack:
    """The images, built; skips where no engine answers."""
    try:
        subprocess.run(["docker", "version"], capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no Docker engine answers ({type(error).__name__})")
    stack = Stack()
    stack.compose("build", timeout_s=BUILD_S)
    return stack


@pytest.fixture(scope="session")
def stack(images: Stack) -> Iterator[Stack]:
    """The running service; gone with its volumes after the tests."""
    try:
        images.up()
        yield images
    finally:
        images.compose("down", "--volumes", "--timeout", "30")
