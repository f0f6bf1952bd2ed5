"""Figures of a benchmark are on disk as soon as they exist, whatever ends the benchmark."""

import json
import subprocess
import sys

import pytest

from bench import results as bench_results
from bench.results import INTERRUPTED, Results
from contract.settings import REPOSITORY


def written(folder):
    """What is on disk of the benchmark `some`."""
    return json.loads((folder / "some.json").read_bytes())


def test_figure_is_on_disk_before_the_next_is_measured(tmp_path):
    with Results("some", {"texts": 2}, folder=tmp_path) as results:
        results.put({"load_s": 1.5})
        first = written(tmp_path)
        results.put({"score_s": 0.5})

    assert first["figures"] == {"load_s": 1.5}
    assert first["is_complete"] is False
    assert written(tmp_path)["figures"] == {"load_s": 1.5, "score_s": 0.5}
    assert written(tmp_path)["is_complete"] is True
    assert "| score_s | 0.5 |" in (tmp_path / "some.md").read_text()
    assert "- texts: 2" in (tmp_path / "some.md").read_text()


def test_time_limit_ends_a_benchmark_and_keeps_its_figures(tmp_path, capsys):
    with Results("some", limit_s=0, folder=tmp_path) as results:
        results.put({"load_s": 1.5})
        results.step("what has no time left")
        results.put({"score_s": 0.5})

    assert written(tmp_path)["figures"] == {"load_s": 1.5}
    assert written(tmp_path)["is_complete"] is False
    assert "the limit of 0 s is over" in capsys.readouterr().out


def be_ended_by(error, folder):
    """Run a benchmark that `error` ends after one figure."""
    with Results("some", folder=folder) as results:
        results.put({"load_s": 1.5})
        raise error


def test_ctrl_c_keeps_the_figures_and_ends_the_program(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        be_ended_by(KeyboardInterrupt, tmp_path)

    assert ended.value.code == INTERRUPTED
    assert written(tmp_path)["figures"] == {"load_s": 1.5}
    assert "1 figures are kept" in capsys.readouterr().out


def test_failure_keeps_the_figures_and_is_not_hidden(tmp_path):
    with pytest.raises(ZeroDivisionError):
        be_ended_by(ZeroDivisionError, tmp_path)

    assert written(tmp_path)["figures"] == {"load_s": 1.5}
    assert written(tmp_path)["is_complete"] is False


def test_benchmark_without_a_figure_leaves_older_results_alone(tmp_path):
    (tmp_path / "some.json").write_text("{}")
    with Results("some", limit_s=-1, folder=tmp_path) as results:
        results.step("what has no time left")

    assert written(tmp_path) == {}


def test_missing_git_and_packages_are_named_as_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(bench_results, "_PACKAGES", ("torch", "no-such-package"))

    found = bench_results.circumstances()

    assert found["commit"] is None
    assert found["has_local_changes"] is None
    assert "torch" in found["versions"]
    assert "no-such-package" not in found["versions"]


def test_folder_that_is_no_repository_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_results, "RESULTS", tmp_path / "results")
    assert bench_results.circumstances()["commit"] is None


def test_writing_results_needs_no_package_but_python():
    command = [sys.executable, "-I", "-S", "-c"]
    program = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import bench.results"
    subprocess.run([*command, program], check=True)
