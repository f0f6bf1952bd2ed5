"""The images: small, without root, and without what does not belong in them."""

import re

import pytest

from contract.settings import REPOSITORY
from tests.docker.conftest import inspect, output

IMAGES = ("evascore-redis:local", "evascore-web:local", "evascore-worker:local-cpu")
BASES = {
    "evascore-redis:local": "redis:7.4-alpine",
    "evascore-web:local": "python:3.11-slim-bookworm",
    "evascore-worker:local-cpu": "python:3.11-slim-bookworm",
}
ROW = re.compile(r"^\| `(evascore-[a-z:-]+)` \|.*\| (\d[\d,]*) \|$", re.MULTILINE)
CEILINGS_MB = {
    image: int(ceiling.replace(",", ""))
    for image, ceiling in ROW.findall((REPOSITORY / "docs/docker.md").read_text())
}
WEB_START_S = 2.0

pytestmark = pytest.mark.usefixtures("images")


def run(image: str, *command: str) -> str:
    """What a command writes in a fresh container of an image, as nobody changes it."""
    return output("docker", "run", "--rm", "--entrypoint", command[0], image, *command[1:])


@pytest.mark.parametrize("image", IMAGES)
def test_image_adds_no_more_to_its_base_than_the_document_allows(image):
    added_mb = (inspect(image)["Size"] - inspect(BASES[image])["Size"]) / 1e6
    assert added_mb <= CEILINGS_MB[image]


@pytest.mark.parametrize("image", IMAGES)
def test_image_runs_without_root(image):
    assert int(run(image, "id", "-u")) != 0


@pytest.mark.parametrize("image", IMAGES[1:])
def test_only_the_demo_weights_are_in_an_image(image):
    found = run(image, "find", "/srv", "/var/lib", "-size", "+1M", "-type", "f").split()
    found = [path for path in found if not path.startswith("/var/lib/dpkg/")]
    assert set(found) <= {"/srv/evascore/model/checkpoints/demo/model.safetensors"}


@pytest.mark.parametrize("image", IMAGES[1:])
def test_no_part_of_the_repository_that_it_needs_not_is_in_an_image(image):
    found = set(run(image, "ls", "-A", "/srv/evascore").split())
    assert found <= {"LICENSE", "app", "contract", "gunicorn.conf.py", "model", "worker"}


def test_web_image_knows_no_model():
    packages = run("evascore-web:local", "pip", "list", "--format", "freeze").lower()
    assert "flask==" in packages
    assert not re.search(r"^(torch|triton|transformers|numpy)==", packages, re.MULTILINE)


def test_web_server_starts_within_two_seconds_of_computing():
    # Its own time, as the clock of the wall depends on what else this machine does.
    code = (
        "import os, time; os.environ['EVASCORE_ALLOW_OPEN'] = 'yes';"
        "import gunicorn.app.wsgiapp, app.wsgi; print(time.process_time())"
    )
    assert float(run("evascore-web:local", "python", "-c", code)) < WEB_START_S


def test_worker_image_compiles_what_triton_needs():
    code = (
        "import subprocess, sysconfig, triton.backends.nvidia as n, pathlib as p; "
        "here = p.Path(n.__file__).parent; "
        "subprocess.run(['gcc', '-c', '-fPIC', '-o', '/tmp/driver.o', str(here / 'driver.c'), "
        "'-I', str(here / 'include'), '-I', sysconfig.get_path('include')], check=True)"
    )
    run("evascore-worker:local-cpu", "python", "-c", code)
