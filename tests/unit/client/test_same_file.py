"""No command writes over the input that it reads, or into a folder that is its input."""

import os
from pathlib import Path

import pytest

from deploy.embedded_redis import free_port
from evascore.cli.main import main
from evascore.readers.same_file import holds_input

TEXTS = "text\none\ntwo\n"


def run(*arguments: object) -> int:
    """Run a command with a service that is away; what is refused needs no service."""
    url = f"http://127.0.0.1:{free_port()}"
    return main([*map(str, arguments), "--url", url, "--patience", "0"])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text(TEXTS)
    return path


@pytest.mark.parametrize("form", ["auto", "jsonl", "tsv", "parquet", "jsonl.gz", "jsonl.zst"])
def test_bulk_refuses_to_write_over_its_input(source, form, capsys):
    assert run("bulk", source, source, "--overwrite", "--to", form) == 2
    assert "in.csv is also the input" in capsys.readouterr().err
    assert source.read_text() == TEXTS


@pytest.mark.parametrize("name", ["out.jsonl.state", "out.csv.lines", "out.csv.lines.state"])
def test_bulk_refuses_to_keep_its_progress_in_its_input(source, tmp_path, name, capsys):
    source.rename(tmp_path / name)
    out = tmp_path / ("out.jsonl" if "jsonl" in name else "out.csv")
    assert run("bulk", tmp_path / name, out, "--overwrite", "--format", "text") == 2
    assert f"{name} is also the input" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == TEXTS


def test_bulk_refuses_a_dataset_that_would_replace_the_folder_of_its_input(tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "state.json").write_text("{}")
    (folder / "in.csv").write_text(TEXTS)
    assert run("bulk", folder / "in.csv", folder, "--overwrite", "--to", "dataset") == 2
    assert "is also the input" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["scores.jsonl", "sub/scores.csv", "../texts/scores.jsonl"])
@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_bulk_refuses_to_write_into_the_folder_of_its_texts(tmp_path, name, option, capsys):
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    assert run("bulk", folder, folder / name, option) == 2
    assert "is in the folder" in capsys.readouterr().err
    assert {path.name for path in folder.rglob("*")} == {"sub", "a.txt"}


def test_bulk_takes_a_folder_that_holds_temporary_files_if_it_writes_to_stdout(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "a.txt").write_text("one")
    # The service is away.
    assert run("bulk", tmp_path, "-") == 3


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_next_chars_refuses_to_write_over_its_input(source, tmp_path, link, capsys):
    link(source, tmp_path / "out")
    assert run("next-chars", "--file", source, "--out", tmp_path / "out") == 2
    assert "out is also the input" in capsys.readouterr().err
    assert source.read_text() == TEXTS


def test_next_chars_refuses_to_write_over_its_stdin(source, monkeypatch, capsys):
    with source.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert run("next-chars", "--out", source) == 2
    assert "is also the input" in capsys.readouterr().err
    assert source.read_text() == TEXTS


@pytest.mark.parametrize("content", [None, b"\xff\xfet\0"], ids=["missing", "wrong encoding"])
def test_next_chars_leaves_its_output_as_it_is_if_the_input_cannot_be_read(tmp_path, content):
    out = tmp_path / "old.jsonl"
    out.write_text("old results\n")
    if content is not None:
        (tmp_path / "in.txt").write_bytes(content)
    exit_code = 5 if content is None else 2
    assert run("next-chars", "--file", tmp_path / "in.txt", "--out", out) == exit_code
    assert out.read_text() == "old results\n"


@pytest.mark.parametrize(
    "command",
    [
        lambda source, out: ("bulk", source, out, "--resume", "--format", "text"),
        lambda source, out: ("bulk", source, out, "--overwrite", "--format", "text"),
        lambda source, out: ("next-chars", "--file", source, "--out", out),
    ],
    ids=["bulk --resume", "bulk --overwrite", "next-chars"],
)
def test_input_may_be_a_pipe_if_the_output_exists(tmp_path, command):
    out = tmp_path / "out.jsonl"
    out.write_text("")
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "w") as pipe:
        pipe.write("one\n")
        pipe.close()
        # The service is away.
        assert run(*command(f"/dev/fd/{reader}", out)) == 3


def test_device_may_be_both(monkeypatch):
    with open(os.devnull) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert not holds_input(Path(os.devnull), Path("-"))
