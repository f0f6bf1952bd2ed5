"""Implements `evascore gen-data`, which writes generated texts for tests and benchmarks."""

import json
from pathlib import Path
from typing import Annotated

import typer

from evascore.cli.common import USAGE, AsJson, CommandFailed, opened, say, show_json
from evascore.measuring import synthetic
from evascore.wording import counted


def command(
    count: Annotated[int, typer.Argument(min=1, help="Number of texts.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write to this file instead of stdout.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same texts.")] = 0,
    min_bytes: Annotated[
        int, typer.Option(min=1, help="Length of the shortest text, in bytes.")
    ] = 8,
    max_bytes: Annotated[
        int, typer.Option(min=1, help="Length of the longest text, in bytes.")
    ] = 4096,
    skew: Annotated[
        float, typer.Option(min=0.01, help="A larger number makes long texts rarer.")
    ] = 3.0,
    invalid_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of texts that are not UTF-8.")
    ] = 0.02,
    as_json: AsJson = False,
) -> None:
    """Write generated texts in many scripts as JSON lines; a seed always gives the same texts.

    Long texts are rare, characters take 1 to 4 bytes, and some texts are not UTF-8 (those are in
    base64). `evascore bulk` and `python -m model score` read the file.
    """
    if min_bytes > max_bytes:
        raise CommandFailed(
            f"--min-bytes ({min_bytes}) must not exceed --max-bytes ({max_bytes}).", USAGE
        )
    if as_json and out is None:
        raise CommandFailed(
            "--json prints a summary of the file that is written; give --out too.", USAGE
        )
    recipe = synthetic.Recipe(seed, min_bytes, max_bytes, skew, invalid_share)
    num_bytes = 0
    with opened(out, "wb") as target:
        for line in synthetic.lines(recipe, count):
            num_bytes += target.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    if as_json:
        show_json({"path": str(out), "texts": count, "file_bytes": num_bytes, "seed": seed})
    elif out is not None:
        say(f"Wrote {counted(count, 'text')} to {out}.")
