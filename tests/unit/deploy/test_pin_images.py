"""Base images are pinned by digest, all or none."""

import os
import re
import shutil
from pathlib import Path

import pytest

from contract.settings import REPOSITORY
from deploy import pin_images

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def checkout(tmp_path) -> Path:
    """The files that name images."""
    for name in pin_images.FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


def texts(root: Path) -> str:
    return "".join((root / name).read_text() for name in pin_images.FILES)


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


def test_every_image_is_pinned_beside_its_tag_and_again_to_a_newer_one(checkout, docker):
    named = set(re.findall(r"_IMAGE(?::-|=)([^\s}@]+)", texts(checkout)))
    assert {"redis:7.4-alpine", "python:3.11-slim-bookworm"} <= named
    for letter in "ab":
        docker(f"echo sha256:{letter * 64}")
        assert set(pin_images.pin(checkout)) == named
        found = re.findall(r"_IMAGE(?::-|=)([^\s}]+)", texts(checkout))
        assert {image.partition("@")[0] for image in found} == named
        assert {image.partition("@")[2] for image in found} == {f"sha256:{letter * 64}"}


@pytest.mark.parametrize(
    "answer",
    ["echo away >&2; exit 1", "echo nothing", f'[ "$4" = redis:7.4-alpine ] || echo {DIGEST}'],
    ids=["registry away", "no digest", "one image missing"],
)
def test_no_file_changes_if_an_image_has_no_digest(checkout, docker, answer):
    before = texts(checkout)
    docker(answer)
    with pytest.raises(pin_images.NoDigest, match="docker gave no digest"):
        pin_images.pin(checkout)
    assert texts(checkout) == before


def test_all_dockerfiles_are_pinned():
    files = {str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("Dockerfile.*")}
    files |= {str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("deploy/*/Dockerfile")}
    assert files <= set(pin_images.FILES)
