"""`evascore bulk`: a file of texts in, a file of results out, however often it is interrupted."""

from contextlib import suppress
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evascore.bulk import Bulk, Plan, check_paths
from evascore.bulk_files import BulkRefused, Target
from evascore.cli.common import (
    FILES,
    INTERRUPTED,
    SOME_FAILED,
    URL,
    USAGE,
    AsJson,
    CommandFailed,
    Outputs,
    TopK,
    Url,
    connect,
    exit_code_of,
    progress_bar,
    say,
    show_json,
)
from evascore.errors import EvascoreError


class Form(StrEnum):
    """What a line of the input is."""

    JSONL = "jsonl"
    TEXT = "text"


def command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A file of lines.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Gets one line for each of them.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where OUT ends; begins if there is none.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew, without OUT.")
    ] = False,
    form: Annotated[
        Form, typer.Option("--format", help="Whether a line is JSON or itself the text.")
    ] = Form.JSONL,
    outputs: Outputs = None,
    top_k: TopK = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the results at the service until they expire.")
    ] = False,
    patience_s: Annotated[
        float,
        typer.Option("--patience", min=0, help="Seconds to go on while the service is away."),
    ] = 600.0,
    url: Url = URL,
    as_json: AsJson = False,
) -> int:
    """Score a file of texts, one line of results for each line, in order.

    JSON lines are objects as docs/bulk.md has them, such as {"custom_id": "a", "text": "any text"};
    blank ones are ignored. A bad line gets a result with its error. OUT holds whole lines at all
    times, but for the last one after a crash, and --resume cuts that. OUT.state holds what is
    needed to go on: after Ctrl-C, kill -9, or a restart of the service nothing is scored twice.
    """
    if resume and overwrite:
        raise CommandFailed("--resume and --overwrite exclude each other", USAGE)
    options = {"on_error": "skip"}
    if outputs:
        options["outputs"] = ",".join(outputs)
    if top_k is not None:
        options["top_k"] = str(top_k)
    plan = Plan(source, target, form.value, options, resume, overwrite, keep)
    try:
        check_paths(plan)
        with connect(url, patience_s=patience_s) as client, Target(target) as written:
            return _run(Bulk(client, plan, written), plan, as_json=as_json)
    except BulkRefused as error:
        raise CommandFailed(str(error), USAGE) from None


def _run(bulk: Bulk, plan: Plan, *, as_json: bool) -> int:
    try:
        with progress_bar("scored", bulk.num_lines, bulk.num_done) as tell:
            summary = bulk.run(tell)
    except KeyboardInterrupt:
        with suppress(OSError):
            say(f"{bulk.num_done:,} of {bulk.num_lines:,} lines are written; {_go_on(plan)}")
        return INTERRUPTED
    except BulkRefused:
        raise
    except EvascoreError as error:
        raise CommandFailed(f"{error} ({_go_on(plan)})", exit_code_of(error)) from None
    except OSError as error:
        where = error.filename or plan.target
        raise CommandFailed(f"{where}: {error.strerror} ({_go_on(plan)})", FILES) from None
    if as_json:
        show_json(asdict(summary))
    else:
        failed = f", {summary.num_failed:,} of them errors" if summary.num_failed else ""
        say(f"{plan.target} is complete: {summary.num_lines:,} lines{failed}")
    return SOME_FAILED if summary.num_failed else 0


def _go_on(plan: Plan) -> str:
    return "run it again to go on" if plan.resume else "the same command with --resume goes on"
