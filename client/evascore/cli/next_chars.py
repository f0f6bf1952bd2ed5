"""Implements `evascore next-chars`, which prints the likeliest characters after texts."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import typer

from evascore.cli.common import (
    SOME_FAILED,
    URL,
    USAGE,
    AsJson,
    CommandFailed,
    Encoding,
    Headers,
    Model,
    PatienceS,
    TimeoutS,
    Url,
    as_bytes,
    connect,
    opened,
    progress_bar,
    say,
    show_table,
)
from evascore.constants import MAX_NEXT_CHARS
from evascore.errors import ClientError, EvascoreError, ModelError
from evascore.readers.encodings import UTF8, codec_of
from evascore.readers.inputs import STDIN, texts_of_lines
from evascore.readers.same_file import holds_input
from evascore.results import NextChars, Score
from evascore.sync import Client
from evascore.texts import Text
from evascore.wording import counted


def command(
    text: Annotated[
        str | None,
        typer.Argument(
            help="The text; without it, each line of --file or stdin is a text.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A file with one text per line.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write JSON lines to this file instead of stdout.")
    ] = None,
    encoding: Encoding = UTF8,
    k: Annotated[
        int, typer.Option("-k", min=1, max=MAX_NEXT_CHARS, help="Number of characters.")
    ] = 3,
    model: Model = None,
    url: Url = URL,
    headers: Headers = None,
    timeout_s: TimeoutS = 300,
    patience_s: PatienceS = 60,
    as_json: AsJson = False,
) -> int:
    """Print the likeliest characters after a text, or after each line of a file.

    For lines, the output has one JSON object per line, in order: the characters with their
    probabilities, and the probability of all others. LF or CR LF is not part of a text.
    """
    if text is not None and file is not None:
        raise CommandFailed("Give either a text or --file, not both.", USAGE)
    with connect(url, headers, timeout_s=timeout_s, patience_s=patience_s, model=model) as client:
        if text is None:
            lines = _begun(file or STDIN, codec_of(encoding), out)
            return _lines(client, lines, out, k)
        likeliest = _of(client.score(Text(as_bytes(text), options={"next_chars": k})))
    if as_json or out is not None:
        with opened(out, "wb") as target:
            target.write(_line(likeliest.raw))
    else:
        show_table((repr(char), f"{p:.4f}") for char, p in likeliest.characters)
    return 0


def _begun(source: Path, encoding: str, out: Path | None) -> Iterator[str | bytes]:
    """The lines of the input; it is open, so that opening `out` cannot lose what it needs."""
    if out is not None and holds_input(out, source):
        raise CommandFailed(f"{out} is also the input; give another file for --out.", USAGE)
    lines = texts_of_lines(source, encoding)
    return chain(list(islice(lines, 1)), lines)


def _lines(client: Client, lines: Iterable[str | bytes], out: Path | None, k: int) -> int:
    num_failed = 0
    with (
        opened(out, "wb") as target,
        progress_bar("lines", None) as tell,
    ):
        texts = (Text(line, options={"next_chars": k}) for line in lines)
        for outcome in client.score_many(texts, errors="return", progress=tell):
            num_failed += isinstance(outcome, EvascoreError)
            target.write(_line(_answer(outcome)))
    if num_failed:
        say(f"{counted(num_failed, 'line')} could not be scored; see the output for the errors.")
    return SOME_FAILED if num_failed else 0


def _line(result: Mapping[str, Any]) -> bytes:
    return json.dumps(result, ensure_ascii=False).encode() + b"\n"


def _answer(outcome: Score | EvascoreError) -> dict[str, Any]:
    """The JSON to write for one line; raises errors that do not concern that line alone."""
    if isinstance(outcome, Score):
        return dict(_of(outcome).raw)
    if not isinstance(outcome, ClientError | ModelError):
        raise outcome
    return {"error": {"code": outcome.type, "message": str(outcome)}}


def _of(score: Score) -> NextChars:
    assert score.next_chars is not None, "asked for and answered"
    return score.next_chars
