"""Reads and writes the three files of a bulk run: input, results, and state (the progress)."""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

from evascore.bulk.error_kinds import ErrorSummary
from evascore.errors import UnexpectedAnswer
from evascore.operations.api import new_key
from evascore.readers.inputs import Form, Input
from evascore.readers.packages import InputRefused

# Size of one upload. Two at a time are at the service, which bounds what it stores of a file: with
# the scores of every byte about 300 MB for each. By default, the service refuses more than 10,000
# bad lines in one upload, and all lines may be bad, such as blank lines between paragraphs.
UPLOAD_LINES = 10_000
UPLOAD_BYTES = 16 * 1024**2

_STATE_VERSION = 1
_HEAD = re.compile(rb'\{"index":\s*(\d+),\s*"status":\s*"(\w+)"')
_LINE = re.compile(rb'"line":\s*\d+')


class BulkRefused(InputRefused):
    """The files of a run cannot be used; the message says why and what to do."""


@dataclass(slots=True)
class Upload:
    """Consecutive lines of the input that are sent as one batch."""

    first: int
    """Index of its first line, from 0."""
    num_lines: int
    begin_byte: int
    end_byte: int
    """Position of its lines in the input."""
    key: str = field(default_factory=new_key)
    batch_id: str | None = None
    is_finished: bool = False
    """Whether all its results are on disk and its batch is erased."""

    @property
    def end(self) -> int:
        """Index of the line after its last one."""
        return self.first + self.num_lines


@dataclass(slots=True)
class State:
    """The progress of a run, except the number of results, which the target itself shows."""

    format: Form
    options: dict[str, str]
    input_sha256: str
    num_lines: int
    uploads: list[Upload]
    model: str | None = None
    """The model of all scores, as `name@fingerprint`; None before the first. Release 0.1 of the
    client kept none."""
    num_bytes: int = 0
    """Size of the input; each start measures it anew."""

    def save(self, path: Path) -> None:
        """Write the state so that a crash leaves either the old file or the new one."""
        beside = path.with_name(path.name + ".new")
        with beside.open("w") as file:
            json.dump({"version": _STATE_VERSION, **asdict(self)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)

    @classmethod
    def load(cls, path: Path) -> "State":
        """Read what `save` wrote.

        Raises:
            BulkRefused: the file holds something else.
        """
        try:
            stored = json.loads(path.read_bytes())
            if stored.pop("version") != _STATE_VERSION:
                raise ValueError
            uploads = [Upload(**upload) for upload in stored.pop("uploads")]
            return cls(uploads=uploads, **stored)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BulkRefused(
                f"{path} is not a state file of this version of evascore bulk; move it away, and"
                " start again with --overwrite."
            ) from None


def planned(source: Input, options: dict[str, str]) -> State:
    """Plan a new run: count the lines of the input and divide them into uploads.

    Raises:
        InputRefused: a line of text is not in the encoding of the input.
    """
    digest = hashlib.sha256()
    uploads: list[Upload] = []
    num_lines = at = 0
    with source.open() as file:
        for number, line in enumerate(file, 1):
            digest.update(line)
            begin, at = at, at + len(line)
            if not source.is_scored(line):
                continue
            source.check(line, number)
            if not uploads or _is_full(uploads[-1], at):
                uploads.append(Upload(num_lines, 0, begin, begin))
            uploads[-1].num_lines += 1
            uploads[-1].end_byte = at
            num_lines += 1
    return State(source.form, options, digest.hexdigest(), num_lines, uploads, num_bytes=at)


def sha256_of(source: Input, num_bytes: int) -> str:
    """The digest of the first bytes of the input; others may have been appended meanwhile."""
    digest = hashlib.sha256()
    with source.open() as file:
        while chunk := file.read(min(num_bytes, UPLOAD_BYTES)):
            digest.update(chunk)
            num_bytes -= len(chunk)
    return digest.hexdigest()


def lines_of(source: Input, upload: Upload) -> Iterator[bytes]:
    """Yield the lines of an upload as JSON."""
    at = upload.begin_byte
    with source.open() as file:
        file.seek(at)
        for line in _until(file, upload.end_byte):
            if source.is_scored(line):
                yield source.as_json(line, is_first=at == 0)
            at += len(line)


def rest_of(source: Input, upload: Upload, first: int) -> Upload:
    """A new upload of the lines of `upload` from index `first` on."""
    begin, num_skipped = upload.begin_byte, 0
    with source.open() as file:
        file.seek(begin)
        while num_skipped < first - upload.first:
            line = file.readline()
            num_skipped += source.is_scored(line)
            begin += len(line)
    return Upload(first, upload.end - first, begin, upload.end_byte)


def halves_of(source: Input, upload: Upload) -> tuple[Upload, Upload]:
    """Two new uploads of the lines of `upload`, which has at least two."""
    rest = rest_of(source, upload, upload.first + upload.num_lines // 2)
    num_lines = rest.first - upload.first
    return Upload(upload.first, num_lines, upload.begin_byte, rest.begin_byte), rest


def numbers_of(source: Input) -> Iterator[int]:
    """Yield the line numbers, from 1, of the lines of the input that are scored."""
    with source.open() as file:
        for number, line in enumerate(file, 1):
            if source.is_scored(line):
                yield number


def has_score(results: list[bytes]) -> bool:
    """Whether any of these result lines is a score, not an error."""
    heads = map(_HEAD.match, results)
    return any(head is not None and head[2] == b"SUCCESS" for head in heads)


def at_line(result: bytes, number_of: Callable[[], int]) -> bytes:
    """Replace the line number in the error of a result, if it has one."""
    head = _HEAD.match(result)
    if head is None or head[2] == b"SUCCESS" or not _LINE.search(result):
        return result
    return _LINE.sub(b'"line":%d' % number_of(), result)


class Target:
    """The file of results: one whole line for each line of the input, in order."""

    def __init__(self, path: Path, also: BinaryIO | None = None) -> None:
        """Open and lock the file, and remove an incomplete last line.

        Args:
            also: gets a copy of each line that is written.

        Raises:
            BulkRefused: another run writes the file, or it does not hold results.
            OSError: the file cannot be opened.
        """
        self.path, self._also = path, also
        self.num_lines = 0
        self.num_failed = 0
        self.errors = ErrorSummary()
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except BlockingIOError:
            self._file.close()
            raise BulkRefused(
                f"Another evascore bulk is writing {path}; wait for it, or give another file."
            ) from None
        except BulkRefused:
            self._file.close()
            raise

    def __enter__(self) -> "Target":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def clear(self) -> None:
        """Remove all lines."""
        self._file.seek(0)
        self._file.truncate()
        self.num_lines = self.num_failed = 0
        self.errors = ErrorSummary()

    def append(self, lines: list[bytes], first: int) -> None:
        """Write the next lines of results.

        Args:
            first: added to the index of each line.

        Raises:
            UnexpectedAnswer: they are not the next lines.
            OSError: not all lines were written; the next `Target` of this path continues there.
        """
        numbered = b"".join([self._numbered(line, first) for line in lines])
        self._file.write(numbered)
        self._file.flush()
        if self._also is not None:
            _write(self._also, numbered)

    def sync(self) -> None:
        """Return when all that is written is on disk."""
        os.fsync(self._file.fileno())

    def _numbered(self, line: bytes, first: int) -> bytes:
        head = _HEAD.match(line)
        if head is None or not line.endswith(b"\n") or int(head[1]) + first != self.num_lines:
            raise UnexpectedAnswer(
                f"The service did not send the result of line {self.num_lines + 1} next."
            )
        numbered = b'{"index":%d' % self.num_lines + line[head.end(1) :] if first else line
        self._count(head, line)
        return numbered

    def _count(self, head: re.Match[bytes], line: bytes) -> None:
        if head[2] != b"SUCCESS":
            self.num_failed += 1
            self.errors.add(line, self.num_lines)
        self.num_lines += 1

    def _read(self) -> None:
        end = 0
        for line in self._file:
            head = _HEAD.match(line)
            if not line.endswith(b"\n"):
                break
            if head is None or int(head[1]) != self.num_lines:
                raise BulkRefused(
                    f"Line {self.num_lines + 1} of {self.path} was not written by evascore bulk;"
                    " move the file away, or give another one."
                )
            self._count(head, line)
            end += len(line)
        self._file.seek(end)
        self._file.truncate()


def _write(also: BinaryIO, lines: bytes) -> None:
    """Write to stdout.

    Raises:
        OSError: it cannot be written; the error names it.
    """
    try:
        also.write(lines)
        also.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, "stdout") from error


def _is_full(upload: Upload, end_byte: int) -> bool:
    return upload.num_lines == UPLOAD_LINES or end_byte - upload.begin_byte > UPLOAD_BYTES


def _until(file: BinaryIO, end_byte: int) -> Iterator[bytes]:
    at = file.tell()
    while at < end_byte:
        line = file.readline()
        at += len(line)
        yield line
