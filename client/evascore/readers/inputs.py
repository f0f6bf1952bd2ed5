"""Opens the input of a bulk run: a file, a folder, a table or stdin, as lines read many times."""

import io
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from evascore.readers import compression, tables
from evascore.readers.compression import SUFFIXES, decompressed, opened_text, peeked
from evascore.readers.encodings import (
    BYTE_ORDER_MARK,
    BYTES,
    HEAD_BYTES,
    UTF8,
    check_head,
    check_line_ends,
    check_utf8,
    decoded,
    decoded_head,
    decoded_lines,
    whole_text,
    without_line_end,
)
from evascore.readers.packages import InputRefused
from evascore.readers.tables import Columns, Row
from evascore.texts import encode, named

Form = Literal["jsonl", "text"]
Unit = Literal["line", "row", "file"]
Kind = Literal["auto", "jsonl", "text", "json", "csv", "tsv", "parquet", "arrow", "dataset"]
STDIN = Path("-")
MAX_ID_CHARS = 128
_KINDS: dict[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """How an input is to be read."""

    kind: Kind = "auto"
    columns: Columns = field(default_factory=Columns)
    encoding: str = UTF8
    """A codec of Python, or `bytes` to take lines as they are."""


@dataclass(frozen=True, slots=True)
class Input:
    """Lines that can be read more than once, from any place."""

    name: str
    form: Form
    encoding: str = UTF8
    path: Path | None = None
    copy: BinaryIO | None = None
    """A file without a name that holds a copy, where `path` is None."""
    params: dict[str, str] = field(default_factory=dict)
    """Query parameters by which the service reads the lines."""
    unit: Unit = "line"
    """What one line was in the source. A copy holds lines even if the source has rows or files."""

    def open(self) -> BinaryIO:
        """Open it at its beginning."""
        if self.path is not None:
            return cast(BinaryIO, self.path.open("rb"))
        assert self.copy is not None
        return cast(BinaryIO, io.BufferedReader(_View(self.copy.fileno())))

    def version(self) -> tuple[int, ...]:
        """What differs after somebody has written or replaced the file; a copy never does."""
        if self.path is None:
            return ()
        found = self.path.stat()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def is_scored(self, line: bytes) -> bool:
        """Whether a line is sent: blank JSON lines are not, blank lines of text are."""
        return self.form == "text" or bool(line.removeprefix(BYTE_ORDER_MARK).strip())

    def as_json(self, line: bytes, *, is_first: bool) -> bytes:
        """Return a line as a line of JSON."""
        if self.form == "jsonl":
            return line if line.endswith(b"\n") else line + b"\n"
        return encode(dict(named("text", without_line_end(line, is_first=is_first)))) + b"\n"

    def check(self, line: bytes, number: int) -> None:
        """Check the line end of the first line, number 1, and the encoding of a line of text.

        Raises:
            InputRefused
        """
        if self.encoding != BYTES:
            check_line_ends(line, number, self.name)
        if self.form == "text" and self.encoding == UTF8:
            check_utf8(line, number, self.name)


@contextmanager
def opened_input(source: Path, reading: Reading, folder: Path) -> Iterator[Input]:
    """Open an input; what cannot be read twice in place is copied to a file without a name.

    Args:
        folder: for the copy, which is gone when the process ends.

    Raises:
        InputRefused, OSError
    """
    if _is_plain(source):
        magic = compression.magic_of(source)
        kind = _kind_of(source, reading, magic)
        is_in_place = not compression.is_compressed(magic) and kind in ("jsonl", "text")
        if is_in_place and reading.encoding in (UTF8, BYTES):
            yield _in_place(source, kind, reading)
            return
    else:
        kind = _kind_of(source, reading, b"")
    with tempfile.TemporaryFile(dir=folder) as copy:
        yield _copied(source, kind, reading, cast(BinaryIO, copy))


def _is_plain(source: Path) -> bool:
    if source == STDIN:
        return False
    source.stat()
    return source.is_file()


def _in_place(source: Path, kind: Kind, reading: Reading) -> Input:
    with opened_text(source) as file:
        head = peeked(file, HEAD_BYTES)
    if kind == "jsonl":
        check_head(head, str(source))
        return Input(str(source), "jsonl", UTF8, source, params=_params(reading.columns))
    if reading.encoding == UTF8:
        check_head(head, str(source))
    return Input(str(source), "text", reading.encoding, source)


def _copied(source: Path, kind: Kind, reading: Reading, copy: BinaryIO) -> Input:
    params: dict[str, str] = {}
    if kind in ("jsonl", "json"):
        for path in _files_of(source, kind):
            copy.writelines(_with_ends(_lines_of_json(path, kind, reading.encoding)))
        params = _params(reading.columns)
    elif kind == "text" and not source.is_dir():
        for line in _lines_of_text(source, reading.encoding):
            copy.write(encode(dict(named("text", line))) + b"\n")
    else:
        for row in _rows(source, kind, reading):
            copy.write(encode(row) + b"\n")
    copy.flush()
    return Input(_name(source), "jsonl", copy=copy, params=params, unit=_unit_of(source, kind))


def _unit_of(source: Path, kind: Kind) -> Unit:
    """What gets one result. Rows are numbered across all files of a folder."""
    if kind == "text":
        return "file" if source.is_dir() else "line"
    return "line" if kind == "jsonl" and not source.is_dir() else "row"


def _params(columns: Columns) -> dict[str, str]:
    given = {"text_field": columns.text, "id_field": columns.id}
    return {name: value for name, value in given.items() if value is not None}


def _kind_of(source: Path, reading: Reading, magic: bytes) -> Kind:
    """The kind of a file that is asked for, or that its name and its first bytes show."""
    if reading.kind != "auto":
        return reading.kind
    if source.is_dir():
        return _kind_of_folder(source)
    if magic.startswith(compression.PARQUET):
        return "parquet"
    if magic.startswith(compression.ARROW):
        return "arrow"
    kind = kind_by_name(source)
    if kind == "json":
        return "json" if _begins_with(source, "[", reading.encoding) else "jsonl"
    # JSON lines are often saved as .txt.
    if kind == "text" and _begins_with(source, "{", reading.encoding):
        return "jsonl"
    return kind or "jsonl"


def kind_by_name(source: Path) -> Kind | None:
    """Return the kind that the name of a file shows, which may be compressed."""
    name = Path(source.name.lower())
    if name.suffix in SUFFIXES:
        name = name.with_suffix("")
    return _KINDS.get(name.suffix)


def _kind_of_folder(folder: Path) -> Kind:
    if (folder / "dataset_info.json").exists() or (folder / "dataset_dict.json").exists():
        return "dataset"
    kinds = {kind for path in _all_files(folder) if (kind := kind_by_name(path)) is not None}
    if len(kinds) != 1:
        found = f"files of several kinds ({', '.join(sorted(kinds))})" if kinds else "no such file"
        raise InputRefused(
            f"The folder {folder} has {found}; it must hold .txt files, one text each, or shards of"
            " one other kind. --format names the kind to read."
        )
    return kinds.pop()


def _all_files(folder: Path) -> list[Path]:
    """All files in a folder, in the order of their names, without hidden ones."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        path
        for path in files
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _files_of(source: Path, kind: Kind) -> list[Path]:
    """The file itself, or the files of one kind in a folder, in the order of their names."""
    if not source.is_dir():
        return [source]
    files = [path for path in _all_files(source) if kind_by_name(path) == kind]
    if not files:
        endings = ", ".join(ending for ending, of_kind in _KINDS.items() if of_kind == kind)
        raise InputRefused(
            f"The folder {source} has no files of the format {kind}; their names must end in one"
            f" of: {endings}."
        )
    return files


def _begins_with(source: Path, character: str, encoding: str) -> bool:
    """Whether a file begins so after a mark and blanks; no if it cannot be read twice."""
    if source == STDIN or not source.is_file():
        return False
    with opened_text(source) as file:
        return decoded_head(peeked(file, HEAD_BYTES), encoding).startswith(character)


@contextmanager
def _opened(source: Path) -> Iterator[BinaryIO]:
    if source != STDIN:
        with opened_text(source) as file:
            yield file
        return
    with decompressed(sys.stdin.buffer, "stdin") as file:
        yield file


def _lines_of_json(source: Path, kind: Kind, encoding: str) -> Iterator[bytes]:
    with _opened(source) as file:
        if kind == "json" and not _begins_with_a_line(
            decoded_head(peeked(file, HEAD_BYTES), encoding)
        ):
            codec = UTF8 if encoding == BYTES else encoding
            yield from tables.lines_of_json(file, codec, _name(source))
        elif encoding in (UTF8, BYTES):
            check_head(peeked(file, HEAD_BYTES), _name(source))
            for number, line in enumerate(file, 1):
                check_line_ends(line, number, _name(source))
                yield line
        else:
            lines = decoded_lines(file, encoding, _name(source))
            yield from (str(line).encode() for line in lines)


def _begins_with_a_line(head: str) -> bool:
    """Whether JSON begins with a line that is an object, as in the files named .json of C4."""
    line, end, _ = head.partition("\n")
    if not line.startswith("{"):
        return False
    try:
        json.loads(line)
    except ValueError:
        # The head may hold the beginning of a long line only.
        return not end
    except RecursionError:
        # The service refuses the line as nested too deeply.
        return True
    return True


def _lines_of_text(source: Path, encoding: str) -> Iterator[str | bytes]:
    """Yield the lines of a text without their ends."""
    with _opened(source) as file:
        if encoding not in (UTF8, BYTES):
            yield from decoded_lines(file, encoding, _name(source))
            return
        if encoding == UTF8:
            check_head(peeked(file, HEAD_BYTES), _name(source))
        for number, line in enumerate(file, 1):
            if encoding == UTF8:
                check_line_ends(line, number, _name(source))
                check_utf8(line, number, _name(source))
            yield without_line_end(line, is_first=number == 1)


def texts_of_lines(source: Path, encoding: str) -> Iterator[str | bytes]:
    """Yield the lines of a text file, or of stdin for `-`, without their ends; read once.

    Raises:
        InputRefused: it is not in the encoding.
        OSError
    """
    return _lines_of_text(source, encoding)


def text_of(source: Path, encoding: str) -> tuple[bytes, bool]:
    """Read a file, or stdin for `-`, as one text.

    Returns:
        Its bytes, in UTF-8 unless they are to be taken as they are, and whether its lines end in
        CR LF, which stays.

    Raises:
        InputRefused: it is not in the encoding.
        OSError
    """
    with _opened(source) as file:
        content = file.read()
    if encoding == BYTES:
        return content, False
    text = decoded(content, encoding, _name(source)).encode()
    return text, b"\r\n" in text


def _rows(source: Path, kind: Kind, reading: Reading) -> Iterator[Row]:
    if kind == "dataset":
        yield from tables.rows_of_dataset(source, reading.columns)
        return
    if kind == "text":
        yield from _texts_of_folder(source, reading)
        return
    if source == STDIN or not (source.is_file() or source.is_dir()):
        raise InputRefused(
            f"{_name(source)} can be JSON lines or text; save a table to a file first."
        )
    for path in _files_of(source, kind):
        yield from _rows_of_file(path, kind, reading)


def _rows_of_file(path: Path, kind: Kind, reading: Reading) -> Iterator[Row]:
    if kind in ("csv", "tsv"):
        delimiter = "," if kind == "csv" else "\t"
        return tables.rows_of_csv(path, reading.columns, reading.encoding, delimiter)
    if kind == "parquet":
        return tables.rows_of_parquet(path, reading.columns)
    return tables.rows_of_arrow(path, reading.columns)


def _texts_of_folder(folder: Path, reading: Reading) -> Iterator[Row]:
    """Yield one text for each file, with its path in the folder as its ID."""
    for path in _files_of(folder, "text"):
        # A name need not be UTF-8, and an ID must be.
        name = os.fsencode(path.relative_to(folder).as_posix()).decode(errors="backslashreplace")
        if len(name) > MAX_ID_CHARS:
            raise InputRefused(
                f"A path in {folder} has {len(name)} characters; it is the ID of its text, and an"
                f" ID has at most {MAX_ID_CHARS}."
            )
        with opened_text(path) as file:
            text = whole_text(file.read(), reading.encoding, str(path))
        yield {"custom_id": name, **named("text", text)}


def _with_ends(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines, each with its newline: a file of shards may end without one."""
    return (line if line.endswith(b"\n") else line + b"\n" for line in lines)


def _name(source: Path) -> str:
    return "stdin" if source == STDIN else str(source)


class _View(io.RawIOBase):
    """Reads a file that others read, too, from a place of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._at = descriptor, 0

    def readable(self) -> bool:
        """Tell io.BufferedReader that this can be read."""
        return True

    def seekable(self) -> bool:
        """Tell io.BufferedReader that this can be read from any place."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, counted from the beginning or from here."""
        assert whence != io.SEEK_END
        self._at = offset if whence == io.SEEK_SET else self._at + offset
        return self._at

    def readinto(self, target: Any) -> int:
        """Fill `target`; return the number of bytes, 0 at the end."""
        found = os.pread(self._descriptor, len(target), self._at)
        target[: len(found)] = found
        self._at += len(found)
        return len(found)
