"""Reads the text and the ID of each row of a table: CSV, TSV, Parquet, Arrow, datasets."""

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import partial
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

from evascore.readers.compression import opened_text, peeked
from evascore.readers.encodings import BYTES, HEAD_BYTES, UTF8, check_head, decoded, not_in
from evascore.readers.packages import InputRefused, package
from evascore.texts import named

TEXT, ID = "text", "custom_id"
BATCH_ROWS = 1024
# What Python writes as others do, so that IDs can be joined.
_ID_TYPES = (str, int, float, Decimal, date, UUID)
_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
# A name that cannot be a text: a table without a header has texts in its first row.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")

Row = dict[str, Any]
"""`text` or `text_b64`, and `custom_id` if the rows have IDs."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns of the text and of the ID; None: not given."""

    text: str | None = None
    id: str | None = None


def chosen(columns: Columns, found: Iterable[str], name: str) -> Columns:
    """Return the columns to read of those that a table has.

    Raises:
        InputRefused: it has not those, or several of that name, or none was given and it is not
            clear which has the text.
    """
    found = list(found)
    if not found:
        raise InputRefused(f"{name} has no columns; a table begins with their names.")
    text = columns.text
    if text is None:
        text = TEXT if TEXT in found or len(found) != 1 else found[0]
    for option, wanted in (("--text-field", text), ("--id-field", columns.id)):
        if wanted is not None and wanted not in found:
            raise InputRefused(
                f"{name} has no column {wanted}; give {option} with one of: {_listed(found)}."
            )
    read = Columns(text, columns.id or (ID if ID in found else None))
    for wanted in (read.text, read.id):
        if wanted is not None and found.count(wanted) > 1:
            raise InputRefused(f"{name} has several columns {wanted}; rename all but one of them.")
    return read


def rows_of_csv(path: Path, columns: Columns, encoding: str, delimiter: str) -> Iterator[Row]:
    """Yield the rows of a CSV or TSV file with a header.

    Args:
        delimiter: `,` stands for a comma or, as Excel writes in many countries, a semicolon.

    Raises:
        InputRefused
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    if encoding == BYTES:
        raise InputRefused("A table has characters; give the name of its encoding.")
    with opened_text(path) as source:
        if encoding == UTF8:
            check_head(peeked(source, HEAD_BYTES), str(path))
        text = TextIOWrapper(source, encoding=encoding, newline="")
        try:
            yield from _rows_of(text, columns, str(path), delimiter)
        except UnicodeError:
            if encoding != UTF8:
                raise not_in(encoding, str(path)) from None
            raise InputRefused(
                f"{path} is not in {encoding}; give --encoding latin-1 or cp1252, or save it as"
                " UTF-8."
            ) from None
        except csv.Error:
            raise InputRefused(f"{path} is not valid CSV; is a quotation mark missing?") from None


def _rows_of(text: TextIOWrapper, columns: Columns, name: str, delimiter: str) -> Iterator[Row]:
    first_line = text.readline().removeprefix("\ufeff")
    if delimiter == "," and first_line.count(";") > first_line.count(","):
        delimiter = ";"
    # The header may have several lines: a name in quotes may hold line ends.
    rows = csv.reader(chain([first_line], text), delimiter=delimiter, strict=True)
    header = next(rows, [])
    chosen_columns = chosen(columns, header, name)
    for values in rows:
        # Spreadsheets may end rows with empty cells.
        if any(values[len(header) :]):
            raise InputRefused(
                f"{name}, line {rows.line_num}: the row has more cells than the header; put"
                f" texts that contain {_DELIMITERS[delimiter]} in quotes."
            )
        if values:
            yield _row(dict(zip(header, values, strict=False)), chosen_columns)


def lines_of_json(source: BinaryIO, encoding: str, name: str) -> Iterator[bytes]:
    """Yield the objects of a file that is one JSON array as lines, as `jsonl` would have them.

    Args:
        name: of the file, for messages.

    Raises:
        InputRefused: it is something else, or an object names a field twice.
    """
    try:
        content = decoded(source.read(), encoding, name)
        rows = json.loads(content, object_pairs_hook=partial(_unique_fields, name))
        if not isinstance(rows, list):
            raise InputRefused(f"{name} must be JSON lines, or a JSON array of objects.")
        for row in rows:
            yield json.dumps(row).encode() + b"\n"
    except ValueError:
        raise InputRefused(f"{name} is not valid JSON in {encoding}.") from None
    except RecursionError:
        raise InputRefused(
            f"{name} is nested too deeply; leave out the columns that hold nested JSON."
        ) from None


def _unique_fields(name: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InputRefused(
            f"{name} is ambiguous: an object names a field twice; name each field once."
        )
    return fields


def rows_of_parquet(path: Path, columns: Columns) -> Iterator[Row]:
    """Yield the rows of a Parquet file."""
    parquet = package("pyarrow.parquet", "parquet", f"{path} is a Parquet file")
    pyarrow = package("pyarrow", "parquet", f"{path} is a Parquet file")
    try:
        file = parquet.ParquetFile(path)
        read = chosen(columns, file.schema_arrow.names, str(path))
        names = [name for name in (read.text, read.id) if name is not None]
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
            for row in batch.to_pylist():
                yield _row(row, read)
    except pyarrow.ArrowInvalid:
        raise InputRefused(f"{path} is not a Parquet file, or it is damaged.") from None


def rows_of_arrow(path: Path, columns: Columns) -> Iterator[Row]:
    """Yield the rows of an Arrow file, as a stream or with random access (Feather)."""
    pyarrow = package("pyarrow", "parquet", f"{path} is an Arrow file")
    ipc = package("pyarrow.ipc", "parquet", f"{path} is an Arrow file")
    try:
        with pyarrow.memory_map(str(path)) as source:
            try:
                opened = ipc.open_file(source)
                batches = (opened.get_batch(n) for n in range(opened.num_record_batches))
            except pyarrow.ArrowInvalid:
                source.seek(0)
                opened = ipc.open_stream(source)
                batches = iter(opened)
            read = chosen(columns, opened.schema.names, str(path))
            for batch in batches:
                for row in batch.select([n for n in (read.text, read.id) if n]).to_pylist():
                    yield _row(row, read)
    except pyarrow.ArrowInvalid:
        raise InputRefused(f"{path} is not an Arrow file, or it is damaged.") from None


def rows_of_dataset(path: Path, columns: Columns) -> Iterator[Row]:
    """Yield the rows of a folder that `Dataset.save_to_disk` of Hugging Face wrote."""
    if (path / "dataset_dict.json").exists():
        splits = sorted(each.parent.name for each in path.glob("*/state.json"))
        raise InputRefused(
            f"{path} has several splits; give one of them: "
            + ", ".join(str(path / split) for split in splits)
        )
    datasets = package("datasets", "datasets", f"{path} is a dataset of Hugging Face")
    # A dataset keeps the format that it was saved with, such as tensors.
    loaded = datasets.load_from_disk(str(path)).with_format(None)
    read = chosen(columns, loaded.column_names, str(path))
    names = [name for name in (read.text, read.id) if name is not None]
    for batch in loaded.select_columns(names).iter(BATCH_ROWS):
        for values in zip(*(batch[name] for name in names), strict=True):
            yield _row(dict(zip(names, values, strict=True)), read)


def _row(row: Mapping[str, Any], columns: Columns) -> Row:
    """The fields of a row in JSON; one without text or ID gets an error as its result."""
    assert columns.text is not None
    text = _present(row.get(columns.text))
    if not (text is None or isinstance(text, str | bytes)):
        kind = type(text).__name__
        raise InputRefused(f"The column {columns.text} holds values of the type {kind}, not texts.")
    fields: Row = {TEXT: None} if text is None else dict(named(TEXT, text))
    if columns.id is None:
        return fields
    return {ID: _id_of(_present(row.get(columns.id)), columns.id), **fields}


def _id_of(value: Any, column: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise InputRefused(
                f"The column {column} holds bytes that are not UTF-8; convert them to texts first."
            ) from None
    if isinstance(value, bool) or not isinstance(value, _ID_TYPES):
        kind = type(value).__name__
        raise InputRefused(f"The column {column} holds values of the type {kind}, not IDs.")
    return str(value)


def _present(value: Any) -> Any:
    """The value of a cell, None for NaN, which pandas writes for a missing one."""
    return None if isinstance(value, float) and value != value else value


def _listed(names: list[str]) -> str:
    plain = [name for name in names if _PLAIN.fullmatch(name)]
    others = len(names) - len(plain)
    return ", ".join([*plain, *([f"{others} whose names are not plain words"] if others else [])])
