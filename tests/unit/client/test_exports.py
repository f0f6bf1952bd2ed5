"""The output of a bulk run replaces a former output, and never another folder."""

import errno
import json
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest

from evascore.bulk.exports import check_target, export, form_of
from evascore.readers.packages import InputRefused


@pytest.fixture
def lines(tmp_path):
    line = {"index": 0, "status": "SUCCESS", "result": {"num_bytes": 3, "bits_per_byte": 2.5}}
    path = tmp_path / "out.lines"
    path.write_text(json.dumps(line) + "\n")
    return path


def test_folder_of_something_else_is_refused_before_and_kept(tmp_path, lines):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes").write_text("mine")
    for refused in (lambda: check_target(folder, "csv"), lambda: export(lines, folder, "csv")):
        with pytest.raises(InputRefused, match="not a dataset"):
            refused()
    assert (folder / "notes").read_text() == "mine"


def test_dataset_and_file_replace_each_other(tmp_path, lines):
    datasets = pytest.importorskip("datasets")
    target = tmp_path / "out"
    export(lines, target, "csv")
    for _ in range(2):
        export(lines, target, "dataset")
        assert datasets.load_from_disk(str(target))["bits_per_byte"][:] == [2.5]
    export(lines, target, "csv")
    assert target.read_text().splitlines()[1].startswith("0,,SUCCESS,3,")


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("out", "jsonl"),
        ("out.jsonl", "jsonl"),
        ("out.json", "jsonl"),
        ("out.v2.txt", "jsonl"),
        ("out.CSV", "csv"),
        ("out.tab", "tsv"),
        ("out.pq", "parquet"),
        ("out.gz", "jsonl.gz"),
        ("out.jsonl.GZ", "jsonl.gz"),
        ("out.csv.jsonl.zst", "jsonl.zst"),
    ],
)
def test_name_of_the_output_shows_its_form(name, form):
    assert form_of(Path(name), "auto") == form


@pytest.mark.parametrize("inner", [".csv", ".tsv", ".tab", ".parquet", ".pq", ".arrow"])
@pytest.mark.parametrize("outer", [".gz", ".zst", ".bz2", ".XZ"])
def test_compressed_table_is_not_written_as_json_lines(inner, outer):
    with pytest.raises(InputRefused, match=r"cannot be written.*--to"):
        form_of(Path(f"out{inner}{outer}"), "auto")


@pytest.mark.parametrize("suffix", [".arrow", ".feather", ".bz2", ".jsonl.xz"])
def test_form_that_is_only_read_is_not_written_as_json_lines(suffix):
    with pytest.raises(InputRefused, match=r"cannot be written.*--to"):
        form_of(Path(f"out{suffix}"), "auto")
    assert form_of(Path(f"out{suffix}"), "jsonl") == "jsonl"


@contextmanager
def files_of_at_most(num_bytes):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("form", ["csv", "jsonl.gz", "parquet"])
def test_output_that_does_not_fit_is_named_and_the_former_one_stays(tmp_path, lines, form):
    if form == "parquet":
        pytest.importorskip("pyarrow")
    target = tmp_path / "out"
    target.write_text("former")
    with files_of_at_most(8), pytest.raises(OSError, match="too large") as raised:
        export(lines, target, form)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(target))
    assert target.read_text() == "former"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.lines"]
