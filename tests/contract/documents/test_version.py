"""The version stands in one file, its copies agree, and the changelog has a section for it."""

import re
import tomllib

import pytest
import yaml

import evascore
from contract import __version__
from contract.settings import REPOSITORY

CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text()
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def releases() -> list[tuple[str, str]]:
    """Version and date of each release in the changelog, newest first."""
    return re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", CHANGELOG, re.M)


def test_newest_release_of_the_changelog_is_the_version():
    assert releases()[0][0] == __version__


def test_changelog_has_the_form_of_keep_a_changelog():
    titles = re.findall(r"^## (.*)$", CHANGELOG, re.M)
    assert titles == ["[Unreleased]", *(f"[{version}] - {day}" for version, day in releases())]
    assert set(re.findall(r"^### (.*)$", CHANGELOG, re.M)) <= set(KINDS)
    days = [day for _, day in releases()]
    assert days == sorted(days, reverse=True)


def test_images_of_the_cluster_have_the_version():
    overlay = REPOSITORY / "deploy/kubernetes/overlays/gke-spot/kustomization.yaml"
    tags = {image["newTag"] for image in yaml.safe_load(overlay.read_text())["images"]}
    assert tags == {__version__}
    guide = (REPOSITORY / "docs/kubernetes.md").read_text()
    assert set(re.findall(r"\$REGISTRY/\w+:([\w.]+)", guide)) == {__version__}


@pytest.mark.parametrize("folder", ["", "client", "model_package"])
def test_package_files_leave_the_version_to_the_code(folder):
    project = tomllib.loads((REPOSITORY / folder / "pyproject.toml").read_text())["project"]
    assert "version" not in project
    assert project["dynamic"] == ["version"]


def test_client_is_built_with_the_version_of_its_package():
    project = tomllib.loads((REPOSITORY / "client/pyproject.toml").read_text())
    source = REPOSITORY / "client" / project["tool"]["hatch"]["version"]["path"]
    # The pattern by which hatchling reads a version.
    assert re.findall(r'^__version__ = "(.+)"$', source.read_text(), re.M) == [evascore.__version__]
