"""Base images are locked by digest, all or none."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from contract.settings import REPOSITORY
from deploy import pin_images

DIGEST = "sha256:" + "a" * 64
LINE = re.compile(r"([A-Z]+_IMAGE)=([\w./:-]+)@(sha256:[0-9a-f]{64})")


@pytest.fixture
def checkout(tmp_path) -> Path:
    """The files that name images, and their lock."""
    for name in (*pin_images.FILES, pin_images.LOCK):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """Makes a docker that answers by a line of shell."""

    def make(answer: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "docker").write_text(f"#!/bin/sh\n{answer}\n")
        (folder / "docker").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.defpath}")

    return make


def locked(root: Path) -> dict[str, tuple[str, str]]:
    """Image and digest by variable."""
    lines = (root / pin_images.LOCK).read_text().splitlines()
    found = [LINE.fullmatch(line) for line in lines if not line.startswith("#")]
    return {match[1]: (match[2], match[3]) for match in found}


def test_lock_has_the_images_that_compose_and_dockerfiles_name():
    images = pin_images.images(REPOSITORY)
    assert {"PYTHON_IMAGE", "REDIS_IMAGE", "NGINX_IMAGE"} <= set(images)
    assert {name: image for name, (image, _) in locked(REPOSITORY).items()} == images


def test_every_variable_has_one_image_in_all_files():
    texts = [(REPOSITORY / name).read_text() for name in pin_images.FILES]
    pairs = {pair for text in texts for pair in pin_images.IMAGE.findall(text)}
    assert len(pairs) == len(dict(pairs))


def test_every_image_gets_a_digest_and_later_a_newer_one(checkout, docker):
    for letter in "ab":
        docker(f"echo sha256:{letter * 64}")
        assert pin_images.pin(checkout) == (checkout / pin_images.LOCK).read_text()
        assert {name: image for name, (image, _) in locked(checkout).items()} == pin_images.images(
            REPOSITORY
        )
        assert {digest for _, digest in locked(checkout).values()} == {f"sha256:{letter * 64}"}


@pytest.mark.parametrize(
    "answer",
    ["echo away >&2; exit 1", "echo nothing", f'[ "$4" = redis:7.4-alpine ] || echo {DIGEST}'],
    ids=["registry away", "no digest", "one image missing"],
)
def test_lock_does_not_change_if_an_image_has_no_digest(checkout, docker, answer):
    before = (checkout / pin_images.LOCK).read_text()
    docker(answer)
    with pytest.raises(pin_images.NoDigest, match="docker gave no digest"):
        pin_images.pin(checkout)
    assert (checkout / pin_images.LOCK).read_text() == before


def test_all_dockerfiles_are_among_the_files():
    files = {str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("Dockerfile.*")}
    files |= {str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("deploy/*/Dockerfile")}
    assert files <= set(pin_images.FILES)


def test_make_takes_the_images_of_the_lock(checkout, docker):
    asked = checkout / "asked"
    docker(f'echo "$@" > {asked}')
    shutil.copy(REPOSITORY / "Makefile", checkout)
    subprocess.run(["make", "up", "PINNED=1"], cwd=checkout, check=True)
    assert asked.read_text().startswith(f"compose --env-file {pin_images.LOCK} ")
