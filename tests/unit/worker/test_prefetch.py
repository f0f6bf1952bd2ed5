"""What `python -m worker.prefetch` answers: a line that says what is there, or what is wrong."""

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_hub import COMMIT, FakeHub, ask_hub
from tests.service import TINY_CHECKPOINT
from worker import prefetch


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub with the tiny checkpoint, which EVASCORE_MODEL names."""
    repository = shutil.copytree(TINY_CHECKPOINT, tmp_path / "repository")
    with FakeHub(repository) as hub:
        ask_hub(hub, tmp_path / "cache", monkeypatch)
        monkeypatch.setenv("EVASCORE_MODEL", hub.name)
        yield hub


def failure(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    exit_code = prefetch.main()
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("evascore prefetch: ")
    return exit_code, line


def test_what_was_fetched_is_reported(hub, tmp_path, capsys):
    assert prefetch.main() == 0
    line = capsys.readouterr().out
    assert "owner/name is downloaded: 1 file of weights, 0.00 GB" in line
    assert str(tmp_path / "cache") in line


def test_revision_of_the_setting_is_fetched(hub, monkeypatch, capsys):
    monkeypatch.setenv("EVASCORE_MODEL_REVISION", "0" * 40)
    exit_code, line = failure(capsys)
    assert exit_code == 1
    assert f"at revision {'0' * 40}" in line
    monkeypatch.setenv("EVASCORE_MODEL_REVISION", COMMIT)
    assert prefetch.main() == 0
    assert COMMIT in capsys.readouterr().out


def test_folder_needs_nothing(monkeypatch, capsys):
    monkeypatch.setenv("EVASCORE_MODEL", str(TINY_CHECKPOINT))
    assert prefetch.main() == 0
    assert "nothing to download" in capsys.readouterr().out


@pytest.mark.parametrize("name", [None, str(TINY_CHECKPOINT)])
def test_revision_of_a_folder_is_refused(name, monkeypatch, capsys):
    if name is not None:
        monkeypatch.setenv("EVASCORE_MODEL", name)
    monkeypatch.setenv("EVASCORE_MODEL_REVISION", COMMIT)
    exit_code, line = failure(capsys)
    assert exit_code == 1
    assert f"is a folder, which has no revision {COMMIT}" in line
    assert "unset EVASCORE_MODEL_REVISION" in line


def test_damage_to_the_header_of_the_weights_is_reported_by_the_checksum(hub, tmp_path, capsys):
    assert prefetch.main() == 0
    capsys.readouterr()
    [weights] = (tmp_path / "cache").rglob("*.safetensors")
    blob = weights.resolve()
    blob.write_bytes(bytes(100) + blob.read_bytes()[100:])
    exit_code, line = failure(capsys)
    assert exit_code == 1
    assert f"{weights}: damaged" in line
    blob.unlink()
    assert prefetch.main() == 0


def test_disk_that_takes_no_more_is_reported_and_what_came_is_kept(hub, tmp_path, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        exit_code, line = failure(capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert exit_code == 1
    assert "File too large" in line
    [part] = (tmp_path / "cache").rglob("*.part")
    assert part.stat().st_size == 1_000_000
    assert prefetch.main() == 0
    assert hub.ranges == [None, "bytes=1000000-"]


def test_wrong_setting_is_reported(hub, monkeypatch, capsys):
    monkeypatch.setenv("EVASCORE_MODLE", "x")
    exit_code, line = failure(capsys)
    assert exit_code == 2
    assert "did you mean EVASCORE_MODEL?" in line
