"""Builds request bodies from the arguments of a client's method; both clients use it."""

import base64
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from evascore.constants import REQUEST_OPTIONS
from evascore.texts import Text, as_text, checked, each, encode, listed, named

CHUNK_BYTES = 256 * 1024
GZIP = {"Content-Encoding": "gzip"}
# At this level one core compresses faster than most networks transfer.
_GZIP_LEVEL = 1


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """An upload that can be sent again from its beginning."""

    body: Callable[[], Iterator[bytes]]
    params: Mapping[str, str]
    headers: Mapping[str, str]
    num_lines: int | None = None
    """Number of lines that are sent; None if they are not counted."""


BatchLines = str | PathLike[str] | Sequence[str | bytes | Text] | BatchRequest
"""The path of an NDJSON file, a sequence of texts, or a request built by the caller."""


def score_fields(
    text: str | bytes | Text,
    context: str | bytes | None,
    outputs: Sequence[str] | None,
    top_k: int | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Build the JSON fields of a job of one text."""
    asked = as_text(text, context=context, outputs=outputs, top_k=top_k)
    return {**asked.fields(), **options}


def job_fields(
    *texts: str | bytes | Text,
    context: str | bytes | None = None,
    continuations: Sequence[str | bytes] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Build the JSON fields of a job: one text, several, or continuations of one context."""
    fields = dict(options)
    if continuations is not None:
        texts_after = _continuations(listed(continuations, "continuations"))
        return fields | named("context", context or "") | texts_after
    if len(texts) == 1:
        return {**as_text(texts[0], context=context).fields(), **fields}
    items = each(texts, "texts", lambda text: as_text(text, context=context).fields())
    return {"items": list(items), **fields}


def fields_of_all(texts: Sequence[Text]) -> dict[str, Any]:
    """Build the JSON fields of a job of these texts.

    What all of them ask for alike of the whole request stands beside `items`.
    """
    items = [text.fields() for text in texts]
    if len(items) == 1:
        return items[0]
    asked = {name: items[0][name] for name in REQUEST_OPTIONS if name in items[0]}
    shared = {
        name: value
        for name, value in asked.items()
        if all(name in item and item[name] == value for item in items)
    }
    rest = [{name: value for name, value in item.items() if name not in shared} for item in items]
    return {"items": rest, **shared}


def batch_request(lines: BatchLines, options: Mapping[str, Any]) -> BatchRequest:
    """Build the upload of a file's lines or of texts."""
    if isinstance(lines, BatchRequest):
        return lines
    params = {name: _parameter(value) for name, value in options.items() if value is not None}
    if isinstance(lines, str | PathLike):
        path = Path(lines)
        return BatchRequest(lambda: compressed(file_chunks(path)), params, GZIP)
    # Kept, as a retry sends them again from the first one.
    texts = list(each(listed(lines, "lines"), "lines", checked))
    return BatchRequest(lambda: compressed(_encoded(texts)), params, GZIP, len(texts))


def compressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks as one gzip stream."""
    target = _Gathered()
    with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0) as stream:
        for chunk in chunks:
            stream.write(chunk)
            yield from target.taken()
    yield from target.taken()


def file_chunks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file in chunks."""
    with path.open("rb") as source:
        while chunk := source.read(CHUNK_BYTES):
            yield chunk


def json_line(raw: bytes) -> dict[str, Any]:
    """Parse one line of results."""
    line: dict[str, Any] = json.loads(raw)
    return line


class _Gathered:
    """A file object that keeps what gzip writes until it is taken."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def write(self, chunk: bytes) -> int:
        self._chunks.append(chunk)
        return len(chunk)

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def taken(self) -> list[bytes]:
        chunks, self._chunks = [chunk for chunk in self._chunks if chunk], []
        return chunks


def _parameter(value: Any) -> str:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return str(value)
    return ",".join(map(str, value))


def _continuations(texts: Iterable[str | bytes]) -> dict[str, Any]:
    """All as Unicode or all as base64: the API accepts only one of the two lists."""
    texts = list(texts)
    forms = list(each(texts, "continuations", lambda text: named("", text)))
    if all("" in form for form in forms):
        return {"continuations": [form[""] for form in forms]}
    as_bytes = [text.encode() if isinstance(text, str) else text for text in texts]
    return {"continuations_b64": [base64.b64encode(text).decode("ascii") for text in as_bytes]}


def _encoded(texts: Sequence[Text]) -> Iterator[bytes]:
    return each(texts, "lines", lambda text: encode(text.fields()) + b"\n")
