"""Implements `evascore score`, which scores one text and prints a table."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from evascore.cli.common import (
    URL,
    AsJson,
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
from evascore.constants import NUM_SPECIAL_IDS
from evascore.readers.encodings import UTF8
from evascore.results import Score


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
    outputs: Outputs = None,
    top_k: TopK = None,
    model: Model = None,
    url: Url = URL,
    headers: Headers = None,
    timeout_s: TimeoutS = 300,
    patience_s: PatienceS = 5,
    as_json: AsJson = False,
) -> None:
    """Score one text: the log-likelihood of its bytes, each given all bytes before it."""
    given = read_input(text, file, encoding)
    with connect(url, headers, timeout_s=timeout_s, patience_s=patience_s, model=model) as client:
        score = client.score(
            given,
            context=None if context is None else as_bytes(context),
            outputs=outputs or None,
            top_k=top_k,
        )
    if as_json:
        show_json(score.raw)
        return
    show_table(_summary(score))
    if score.bytes is not None or score.top_k is not None:
        typer.echo("")
        for row in _per_byte(given, score):
            typer.echo(row)


def _summary(score: Score) -> Iterator[tuple[str, str]]:
    chars = "not UTF-8" if score.num_chars is None else f"{score.num_chars:,} characters"
    if score.bits_per_byte is not None:
        yield "bits per byte", f"{score.bits_per_byte:.4f}"
    yield "log-likelihood", f"{score.log_likelihood_nats:.4f} nats"
    if score.byte_perplexity is not None:
        yield "perplexity per byte", f"{score.byte_perplexity:.4f}"
    yield "length", f"{score.num_bytes:,} bytes, {chars}"
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
