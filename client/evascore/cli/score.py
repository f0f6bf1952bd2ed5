"""Implements `evascore score`, which scores one text and prints a table."""

import math
import os
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from evascore.characters import characters
from evascore.cli import heat
from evascore.cli.common import (
    URL,
    USAGE,
    AsJson,
    CommandFailed,
    Encoding,
    Headers,
    Model,
    Outputs,
    PatienceS,
    TimeoutS,
    TopK,
    Url,
    as_bytes,
    connect,
    read_input,
    show_json,
    show_table,
)
from evascore.constants import MAX_NEXT_CHARS, NUM_SPECIAL_IDS
from evascore.readers.encodings import UTF8
from evascore.results import Score
from evascore.sync import Client
from evascore.wording import counted


class Unit(StrEnum):
    """What a span is."""

    WORDS = "words"
    LINES = "lines"
    CHARACTERS = "characters"


def command(
    text: Annotated[
        str | None,
        typer.Argument(help="The text to score; - or none reads stdin.", show_default=False),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", help="Read the text from this file, its last newline included."
        ),
    ] = None,
    encoding: Encoding = UTF8,
    context: Annotated[
        str | None, typer.Option(help="Text before the scored text; it is read, but not scored.")
    ] = None,
    continuations: Annotated[
        list[str] | None,
        typer.Option(
            "--continuation",
            help="Text to score after --context, instead of a text. Repeatable.",
            show_default=False,
        ),
    ] = None,
    spans: Annotated[
        Unit | None,
        typer.Option(
            "--spans", help="Also score each word, line or character.", show_default=False
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            help="Score a long text in sliding windows of SIZE bytes, each STRIDE bytes further.",
            metavar="SIZE,STRIDE",
        ),
    ] = None,
    next_chars: Annotated[
        int | None,
        typer.Option(
            "--next-chars",
            min=1,
            max=MAX_NEXT_CHARS,
            help="Also list this many likeliest characters after the text.",
        ),
    ] = None,
    outputs: Outputs = None,
    top_k: TopK = None,
    model: Model = None,
    url: Url = URL,
    headers: Headers = None,
    timeout_s: TimeoutS = 300,
    patience_s: PatienceS = 5,
    as_json: AsJson = False,
) -> None:
    """Score one text: the log-likelihood of its bytes, each given all bytes before it.

    At a terminal the text is shown too, in colours for how surprising each character is.
    """
    options = _options(spans, window, next_chars)
    asked = {"outputs": outputs or None, "top_k": top_k, **options}
    connected = connect(url, headers, timeout_s=timeout_s, patience_s=patience_s, model=model)
    if continuations:
        if text is not None or file is not None or options:
            raise CommandFailed(
                "--continuation goes with --context, not with a text or with options of a text.",
                USAGE,
            )
        if (outputs or top_k is not None) and not as_json:
            raise CommandFailed(
                "With --continuation, --output and --top-k need --json; the table has no place"
                " for them.",
                USAGE,
            )
        with connected as client:
            _continuations(client, context, continuations, asked, as_json=as_json)
        return
    given = read_input(text, file, encoding)
    terminal = heat.console()
    has_map = heat.has_colours(terminal) and not as_json and "bytes" not in (outputs or ())
    if has_map:
        asked["outputs"] = [*(outputs or ()), "bytes"]
    before = None if context is None else as_bytes(context)
    with connected as client:
        score = client.score(given, context=before, **asked)
    if as_json:
        show_json(score.raw)
        return
    if has_map and score.bytes is not None:
        terminal.print(heat.heat_map(characters(given, score.bytes.log_prob_nats)))
        terminal.print(heat.legend(), end="\n\n")
    show_table(_summary(score))
    has_rows = score.top_k is not None or (score.bytes is not None and not has_map)
    for table in (
        _per_byte(given, score) if has_rows else (),
        _spans(given, score),
        _next_chars(score),
    ):
        rows = list(table)
        typer.echo("\n".join(["", *rows])) if rows else None


def _options(unit: Unit | None, window: str | None, next_chars: int | None) -> dict[str, Any]:
    """The options of a text, as the API names them."""
    options: dict[str, Any] = {}
    if unit is not None:
        options["spans"] = unit.value
    if window is not None:
        options["window"] = _window(window)
    if next_chars is not None:
        options["next_chars"] = next_chars
    return options


def _window(given: str) -> dict[str, int]:
    try:
        size, stride = map(int, given.split(","))
    except ValueError:
        raise CommandFailed(
            "Give --window as SIZE,STRIDE in bytes, such as 32767,16384.", USAGE
        ) from None
    return {"size": size, "stride": stride}


def _continuations(
    client: Client,
    context: str | None,
    continuations: list[str],
    asked: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Print a row for each continuation, with its probability among those that are given."""
    if context is None:
        raise CommandFailed("--continuation needs --context, the text before it.", USAGE)
    scores = client.score_continuations(
        as_bytes(context),
        [as_bytes(each) for each in continuations],
        **{name: value for name, value in asked.items() if value is not None},
    )
    if as_json:
        show_json([score.raw for score in scores])
        return
    likeliest = max(score.log_likelihood_nats for score in scores)
    weights = [math.exp(score.log_likelihood_nats - likeliest) for score in scores]
    typer.echo(f"{'nats':>10}  {'bits/byte':>9}  {'share':>6}  continuation")
    for text, score, weight in zip(continuations, scores, weights, strict=True):
        share, nats = weight / sum(weights), score.log_likelihood_nats
        typer.echo(f"{nats:>10.4f}  {_rate(score.bits_per_byte)}  {share:>6.1%}  {_quoted(text)}")


def _summary(score: Score) -> Iterator[tuple[str, str]]:
    chars = "not UTF-8" if score.num_chars is None else counted(score.num_chars, "character")
    if score.bits_per_byte is not None:
        yield "bits per byte", f"{score.bits_per_byte:.4f}"
    yield "log-likelihood", f"{score.log_likelihood_nats:.4f} nats"
    if score.byte_perplexity is not None:
        yield "perplexity per byte", f"{score.byte_perplexity:.4f}"
    yield "length", f"{counted(score.num_bytes, 'byte')}, {chars}"
    if score.curvature is not None:
        yield "curvature", f"{score.curvature:.4f}"
    demo = ", the bundled demo" if score.model.get("is_demo") else ""
    yield "model", f"{score.model.get('name')} ({score.model.get('revision')}){demo}"


def _per_byte(text: bytes, score: Score) -> Iterator[str]:
    """Yield a header and a row for each byte, with the outputs that were asked for."""
    head, rows = f"{'byte':>6}", [f"{_named(byte):>6}" for byte in text]
    if score.bytes is not None:
        head += f"  {'bits':>8}  {'rank':>4}  {'entropy':>8}"
        columns = (score.bytes.log_prob_nats, score.bytes.rank, score.bytes.entropy_bits)
        rows = [
            f"{row}  {-log_prob / math.log(2):>8.3f}  {rank:>4}  {entropy:>8.3f}"
            for row, log_prob, rank, entropy in zip(rows, *columns, strict=True)
        ]
    if score.top_k is not None:
        head += "  likeliest"
        shown = map(_likeliest, score.top_k)
        rows = [f"{row}  {likeliest}" for row, likeliest in zip(rows, shown, strict=True)]
    yield head
    yield from rows


def _likeliest(pairs: Iterable[tuple[int, float]]) -> str:
    return "  ".join(f"{_named(byte):>2} {math.exp(nats):.3f}" for byte, nats in pairs)


def _named(byte: int) -> str:
    """A byte as its character or in hexadecimal; a special id, below 0, as <0> to <63>."""
    if byte < 0:
        return f"<{byte + NUM_SPECIAL_IDS}>"
    return chr(byte) if 0x21 <= byte < 0x7F else f"{byte:02x}"


def _spans(text: bytes, score: Score) -> Iterator[str]:
    """Yield a header and a row for each span."""
    if score.spans is None:
        return
    yield f"{'start':>8}  {'bytes':>5}  {'bits':>8}  {'bits/byte':>9}  text"
    for span in score.spans:
        bits = -span.log_likelihood_nats / math.log(2)
        shown = _quoted(os.fsdecode(text[span.start : span.end]))
        rate = _rate(span.bits_per_byte)
        yield f"{span.start:>8}  {span.num_bytes:>5}  {bits:>8.3f}  {rate}  {shown}"


def _next_chars(score: Score) -> Iterator[str]:
    """Yield a header and a row for each likely next character."""
    if score.next_chars is None:
        return
    yield "next character"
    for char, probability in score.next_chars.characters:
        yield f"{probability:>8.4f}  {char!r}"


def _rate(bits_per_byte: float | None) -> str:
    return f"{'-' if bits_per_byte is None else format(bits_per_byte, '.3f'):>9}"


def _quoted(text: str) -> str:
    """The text in quotes, with what a terminal would obey written as escapes."""
    return repr(text)
