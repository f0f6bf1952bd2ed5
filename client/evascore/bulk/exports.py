"""Writes the results of a bulk run in another form: CSV, TSV, Parquet, a dataset, compressed."""

import csv
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from evascore.readers.compression import SUFFIXES
from evascore.readers.inputs import kind_by_name
from evascore.readers.packages import InputRefused, package

To = Literal["auto", "jsonl", "jsonl.gz", "jsonl.zst", "csv", "tsv", "parquet", "dataset"]

NUMBERS = ("num_bytes", "num_chars", "log_likelihood_nats", "bits_per_byte", "byte_perplexity")
_INTEGERS = ("index", "num_bytes", "num_chars")
_TEXTS = ("custom_id", "status", "error_type", "error", "result")
# `result` is the JSON of results that are not a single number, such as those of every byte.
COLUMNS = ("index", "custom_id", "status", *NUMBERS, "curvature", "error_type", "error", "result")
_BATCH_ROWS = 4096
_FORMS: dict[str, To] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".gz": "jsonl.gz",
    ".zst": "jsonl.zst",
}

Row = dict[str, Any]


def form_of(target: Path, to: To) -> To:
    """Return the form that is asked for, or that the name of the target shows.

    Raises:
        InputRefused: the name shows a form that is read, but not written.
    """
    if to != "auto":
        return to
    suffix, shown = target.suffix.lower(), kind_by_name(target)
    form = _FORMS.get(suffix, "jsonl")
    is_other_table = shown in ("csv", "tsv", "parquet", "arrow") and shown != form
    if is_other_table or (suffix in SUFFIXES and suffix not in _FORMS):
        raise InputRefused(
            f"The form that the name of {target} shows cannot be written. Tables are written"
            " uncompressed as .csv, .tsv or .parquet, and JSON lines also as .gz or .zst; or name a"
            " form with --to."
        )
    return form


def check_target(target: Path, form: To) -> None:
    """Check that results can be written in a form, before they are computed.

    Raises:
        InputRefused: `target` is a folder of something else, or a package is missing.
    """
    if target.is_dir() and not (target / "state.json").exists():
        raise InputRefused(f"{target} is a folder, but not a dataset; give another name.")
    why = f"The output is {form}"
    if form in ("parquet", "dataset"):
        package("pyarrow", "parquet", why)
    if form == "dataset":
        package("datasets", "datasets", why)
    if form == "jsonl.zst":
        package("zstandard", "zstd", why)


def export(lines: Path, target: Path, form: To) -> None:
    """Write result lines as `target`, which is replaced as a whole.

    Raises:
        InputRefused: as `check_target`.
        OSError: it cannot be written, as on a full disk; what was written is removed.
    """
    check_target(target, form)
    beside = target.with_name(target.name + ".new")
    try:
        _WRITERS[form](lines, beside)
    except OSError as error:
        if beside.is_file():
            beside.unlink()
        # An error of writing names no file.
        raise OSError(error.errno, error.strerror or str(error), str(target)) from error
    if target.is_dir():
        shutil.rmtree(target)
    elif beside.is_dir():
        # A folder cannot replace a file.
        target.unlink(missing_ok=True)
    os.replace(beside, target)


def rows_of(lines: Path) -> Iterator[Row]:
    """Yield the result lines as rows of `COLUMNS`."""
    with lines.open("rb") as file:
        for line in file:
            yield _row(json.loads(line))


def _row(line: dict[str, Any]) -> Row:
    result, error = line.get("result") or {}, line.get("error") or {}
    single = (*NUMBERS, "curvature")
    other = {name: value for name, value in result.items() if name not in single}
    return {
        "index": line["index"],
        "custom_id": line.get("custom_id"),
        "status": line["status"],
        **{name: result.get(name) for name in single},
        "error_type": error.get("type"),
        "error": error.get("detail"),
        "result": json.dumps(other, ensure_ascii=False) if other else None,
    }


def _write_csv(delimiter: str) -> Callable[[Path, Path], None]:
    def write(lines: Path, target: Path) -> None:
        with target.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows_of(lines))

    return write


def _write_parquet(lines: Path, target: Path) -> None:
    pyarrow = package("pyarrow", "parquet", "The output is parquet")
    parquet = package("pyarrow.parquet", "parquet", "The output is parquet")
    schema = _schema(pyarrow)
    with parquet.ParquetWriter(target, schema) as writer:
        for rows in _in_batches(rows_of(lines)):
            writer.write_batch(pyarrow.RecordBatch.from_pylist(rows, schema=schema))


def _write_dataset(lines: Path, target: Path) -> None:
    pyarrow = package("pyarrow", "parquet", "The output is a dataset")
    datasets = package("datasets", "datasets", "The output is a dataset")
    schema = _schema(pyarrow)
    batches = [
        pyarrow.RecordBatch.from_pylist(rows, schema=schema) for rows in _in_batches(rows_of(lines))
    ]
    table = pyarrow.Table.from_batches(batches, schema=schema)
    datasets.Dataset(table).save_to_disk(str(target))


def _write_compressed(form: str) -> Callable[[Path, Path], None]:
    def write(lines: Path, target: Path) -> None:
        with lines.open("rb") as source, target.open("wb") as file:
            if form == "gz":
                with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as stream:
                    shutil.copyfileobj(source, stream)
            else:
                zstandard = package("zstandard", "zstd", "The output is jsonl.zst")
                zstandard.ZstdCompressor().copy_stream(source, file)

    return write


def _schema(pyarrow: Any) -> Any:
    def type_of(name: str) -> Any:
        if name in _INTEGERS:
            return pyarrow.int64()
        return pyarrow.string() if name in _TEXTS else pyarrow.float64()

    return pyarrow.schema([(name, type_of(name)) for name in COLUMNS])


def _in_batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := [row for _, row in zip(range(_BATCH_ROWS), rows, strict=False)]:
        yield batch


_WRITERS: dict[str, Callable[[Path, Path], None]] = {
    "csv": _write_csv(","),
    "tsv": _write_csv("\t"),
    "parquet": _write_parquet,
    "dataset": _write_dataset,
    "jsonl.gz": _write_compressed("gz"),
    "jsonl.zst": _write_compressed("zst"),
}
