"""A real Docker engine with the whole service on it; `make test-docker` runs this folder."""

import json
import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.settings import REPOSITORY
from deploy.embedded_redis import free_port
from tests.conftest import wait_until

BUILD_S = 3600
PULL_S = 600
START_S = 300
PROJECT = "evascore-test"
TEXT = "The quick brown fox jumps over the lazy dog."
RECOVERY_S = 120
PROBLEM = "application/problem+json"


class Stack:
    """A Compose project of the tests, without a GPU, on free ports."""

    def __init__(self, project: str = PROJECT, folder: Path = REPOSITORY) -> None:
        """Prepare a project of this name, from the Compose files in `folder`; `up` starts it."""
        self.project = project
        self.folder = folder
        self.port, self.https_port, self.flower_port, self.grafana_port = (
            free_port() for _ in range(4)
        )
        self.url = f"http://127.0.0.1:{self.port}"
        # Of the Compose files; a test may change them for what it starts.
        self.variables: dict[str, Any] = {
            "WEB_PORT": self.port,
            "EDGE_HTTP_PORT": free_port(),
            "EDGE_HTTPS_PORT": self.https_port,
            "FLOWER_PORT": self.flower_port,
            "GRAFANA_PORT": self.grafana_port,
        }

    def compose(self, *words: str, timeout_s: float = START_S) -> str:
        """Run `docker compose` with these words; what it wrote to stdout."""
        command = [
            *("env", *(f"{name}={value}" for name, value in self.variables.items())),
            *("docker", "compose", "--project-name", self.project),
            *("-f", "docker-compose.yml", "-f", "compose.cpu.yml"),
        ]
        return output(*command, *words, timeout_s=timeout_s, folder=self.folder)

    def up(self, *words: str) -> None:
        """Start what does not run, and return when all of it is healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", str(START_S), *words)

    @contextmanager
    def profile(self, name: str, *services: str) -> Iterator[None]:
        """Services of a profile beside the rest; skips where an image of theirs cannot be had."""
        for image in map(self.image, services):
            if not _can_be_had(image):
                pytest.skip(f"the image {image} is neither here nor to be pulled")
        wait = ("--detach", "--wait", "--wait-timeout", str(START_S))
        try:
            self.compose("--profile", name, "up", *wait, *services)
            yield
        finally:
            self.compose("--profile", name, "rm", "--stop", "--force", "--volumes", *services)

    def image(self, service: str) -> str:
        """The name of the image that a service runs."""
        config = json.loads(self.compose("--profile", "*", "config", "--format", "json"))
        return config["services"][service]["image"]

    def container(self, service: str) -> str:
        """The ID of the only container of a service."""
        (container,) = self.containers(service)
        return container

    def containers(self, service: str) -> list[str]:
        """The IDs of the running containers of a service."""
        return self.compose("ps", "--quiet", service).split()

    def address(self, service: str) -> str:
        """The address of a service's container on the network that leads outside."""
        networks = inspect(self.container(service))["NetworkSettings"]["Networks"]
        return networks[f"{self.project}_outside"]["IPAddress"]

    def run_in(self, service: str, *command: str) -> str:
        """What a command writes in the container of a service."""
        return output("docker", "exec", self.container(service), *command)

    def logs(self, service: str) -> str:
        """What the containers of a service have written."""
        return self.compose("logs", "--no-log-prefix", service)

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

    @contextmanager
    def paused(self, service: str) -> Iterator[Callable[[], None]]:
        """A service whose processes stand still until what this gives is called, or to the end."""
        container = self.container(service)

        def resume() -> None:
            output("docker", "unpause", container)

        output("docker", "pause", container)
        try:
            yield resume
        finally:
            if inspect(container)["State"]["Paused"]:
                resume()

    def client(self) -> httpx.Client:
        """An HTTP client of this service; the caller closes it."""
        return httpx.Client(base_url=self.url, timeout=60)

    def submit(self, wait_s: int = 30) -> dict[str, Any]:
        """Post one text and wait for its result."""
        with self.client() as client:
            response = client.post("/score", params={"wait": wait_s}, json={"text": TEXT})
        assert response.status_code in (200, 202), response.text
        return response.json()

    def read(self, task_id: str) -> dict[str, Any]:
        """What the service tells of a task ID."""
        with self.client() as client:
            response = client.get(f"/score/{task_id}", params={"wait": 30})
        assert response.status_code == 200, response.text
        return response.json()


class Edge:
    """What a client outside sees of the service."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.certificate = folder / "tls.crt"
        self.url = f"https://localhost:{stack.https_port}"
        self.tls = ssl.create_default_context(cafile=self.certificate)

    def client(self) -> httpx.Client:
        """An HTTP client that trusts the certificate; the caller closes it."""
        return httpx.Client(base_url=self.url, verify=self.tls, timeout=300)

    def connect(self) -> ssl.SSLSocket:
        """A connection on which nothing was said; the caller closes it."""
        raw = socket.create_connection(("localhost", self.stack.https_port), timeout=60)
        return self.tls.wrap_socket(raw, server_hostname="localhost")

    def answers(self) -> bool:
        """Whether a request reaches a web server."""
        with self.client() as client:
            return client.get("/healthz").status_code == 200


def output(*command: str, timeout_s: float = START_S, folder: Path = REPOSITORY) -> str:
    """What a command writes to stdout; the test fails with its stderr if it fails."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def readme_curl() -> tuple[str, float]:
    """The README's first curl of the service at `localhost:8000`, and the score that it shows."""
    readme = (REPOSITORY / "README.md").read_text()
    curl, shown = re.search(
        r"^(curl 'localhost:8000/score.*?)```.*?(-\d+\.\d{6})", readme, re.M | re.S
    ).groups()
    return curl, float(shown)


def answered_score(answer: str) -> float:
    """The log-likelihood in an answer as curl prints it, nats."""
    return float(re.search(r'log_likelihood_nats":(-[\d.]+)', answer)[1])


def inspect(name: str) -> dict[str, Any]:
    """What the engine knows of a container or an image."""
    (found,) = json.loads(output("docker", "inspect", name))
    return found


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    """See that a response is a whole problem object."""
    problem = response.json()
    assert (response.status_code, problem["status"], problem["type"]) == (status, status, code)
    assert response.headers["Content-Type"] == PROBLEM
    assert response.headers["X-Request-Id"] == problem["request_id"]


def _can_be_had(image: str) -> bool:
    def succeeds(*command: str) -> bool:
        done = subprocess.run(command, capture_output=True, timeout=PULL_S, check=False)
        return done.returncode == 0

    return succeeds("docker", "image", "inspect", image) or succeeds("docker", "pull", image)


@pytest.fixture(scope="session")
def images() -> Stack:
    """The images, built; skips where no engine answers."""
    try:
        subprocess.run(["docker", "version"], capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no Docker engine answers ({type(error).__name__})")
    stack = Stack()
    stack.compose("--profile", "*", "build", timeout_s=BUILD_S)
    return stack


@pytest.fixture(scope="session")
def stack(images: Stack) -> Iterator[Stack]:
    """The running service; gone with its volumes after the tests."""
    try:
        images.up()
        yield images
    finally:
        images.compose("--profile", "*", "down", "--volumes", "--timeout", "30")


@pytest.fixture(scope="module")
def edge(stack, tmp_path_factory) -> Iterator[Edge]:
    """nginx in front of the service, with the certificate that the document makes."""
    folder = tmp_path_factory.mktemp("edge")
    document = (REPOSITORY / "docs/docker.md").read_text()
    making = re.search(r"^mkdir -m 700 secrets\n.*?(?=```)", document, re.M | re.S)[0]
    output("bash", "-ec", f"cd {folder}\n{making}")
    secrets = folder / "secrets"
    stack.variables |= {
        "TLS_CERTIFICATE": secrets / "tls.crt",
        "TLS_KEY": secrets / "tls.key",
    }
    with stack.profile("edge", "edge"):
        yield Edge(stack, secrets)


@pytest.fixture
def http(edge) -> Iterator[httpx.Client]:
    with edge.client() as client:
        yield client
