"""Implements `evascore bulk`, which scores a file of texts and resumes after interruptions."""

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
    Headers,
    Model,
    Outputs,
    TopK,
    Url,
    connect,
    exit_code_of,
    progress_bar,
    say,
    sentence_of,
    show_json,
)
from evascore.errors import EvascoreError


class Form(StrEnum):
    """Formats of the input."""

    JSONL = "jsonl"
    TEXT = "text"


def command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="File with one text per line.")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="File for the results, one per text.")
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue where OUT ends; start if there is no OUT.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again, and discard OUT.")
    ] = False,
    form: Annotated[
        Form,
        typer.Option("--format", help="Whether each line is a JSON object or the text itself."),
    ] = Form.JSONL,
    outputs: Outputs = None,
    top_k: TopK = None,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Do not erase the batches at the service; they expire there."),
    ] = False,
    patience_s: Annotated[
        float,
        typer.Option(
            "--patience", min=0, help="Seconds to retry while the service is unreachable."
        ),
    ] = 600.0,
    model: Model = None,
    url: Url = URL,
    headers: Headers = None,
    as_json: AsJson = False,
) -> int:
    """Score a file of texts and write one result per line, in order.

    A JSON line is an object such as {"custom_id": "a", "text": "any text"}; docs/bulk.md lists its
    fields. Blank JSON lines are skipped. The result of a bad line is its error.

    OUT.state keeps the progress. After Ctrl-C, kill -9 or a restart of the service, --resume
    continues and no text is scored twice. It removes an incomplete last line of OUT.
    """
    if resume and overwrite:
        raise CommandFailed("Give either --resume or --overwrite, not both.", USAGE)
    options = {"on_error": "skip"}
    if outputs:
        options["outputs"] = ",".join(outputs)
    if top_k is not None:
        options["top_k"] = str(top_k)
    if model is not None:
        options["model"] = model
    plan = Plan(source, target, form.value, options, resume, overwrite, keep)
    try:
        check_paths(plan)
        with connect(url, headers, patience_s=patience_s) as client, Target(target) as written:
            return _run(Bulk(client, plan, written), plan, as_json=as_json)
    except BulkRefused as error:
        raise CommandFailed(str(error), USAGE) from None


def _run(bulk: Bulk, plan: Plan, *, as_json: bool) -> int:
    try:
        with progress_bar("scored", bulk.num_lines, bulk.num_done) as tell:
            summary = bulk.run(tell)
    except KeyboardInterrupt:
        with suppress(OSError):
            say(f"Interrupted at {bulk.num_done:,} of {bulk.num_lines:,} lines. {_go_on(plan)}")
        return INTERRUPTED
    except BulkRefused:
        raise
    except EvascoreError as error:
        raise CommandFailed(f"{sentence_of(error)} {_go_on(plan)}", exit_code_of(error)) from None
    except OSError as error:
        where = error.filename or plan.target
        raise CommandFailed(f"{where}: {error.strerror}. {_go_on(plan)}", FILES) from None
    if as_json:
        show_json(asdict(summary))
    else:
        failed = f", {summary.num_failed:,} of them with an error" if summary.num_failed else ""
        say(f"{plan.target} is complete: {summary.num_lines:,} lines{failed}.")
    return SOME_FAILED if summary.num_failed else 0


def _go_on(plan: Plan) -> str:
    if plan.resume:
        return "Run the same command again to continue."
    return "Run the same command with --resume to continue."
