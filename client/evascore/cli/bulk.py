"""Implements `evascore bulk`, which scores a file of texts and resumes after interruptions."""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from evascore.bulk.error_kinds import ErrorKind
from evascore.bulk.exports import To, check_target, export, form_of
from evascore.bulk.files import BulkRefused, Target
from evascore.bulk.run import Bulk, ModelChanged, Summary
from evascore.bulk.start import Plan, check_not_input, check_outside, check_paths
from evascore.cli.common import (
    FILES,
    INTERRUPTED,
    SOME_FAILED,
    URL,
    USAGE,
    AsJson,
    CommandFailed,
    Encoding,
    Headers,
    Model,
    Outputs,
    TopK,
    Url,
    connect,
    ended_by_signals,
    exit_code_of,
    progress_bar,
    say,
    sentence_of,
    show_json,
)
from evascore.errors import EvascoreError
from evascore.readers.encodings import UTF8, codec_of
from evascore.readers.inputs import Reading, Unit, opened_input
from evascore.readers.packages import InputRefused
from evascore.readers.tables import TEXT, Columns
from evascore.sync import Client
from evascore.wording import counted

STDOUT = Path("-")
MAX_KINDS = 10
# Seconds to ask whether the service is ready.
PROBE_S = 5.0
AT_WORK = "a worker is ready, but is scoring earlier or long texts."


class Form(StrEnum):
    """Formats of the input."""

    AUTO = "auto"
    JSONL = "jsonl"
    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    ARROW = "arrow"
    DATASET = "dataset"


class OutForm(StrEnum):
    """Formats of the output."""

    AUTO = "auto"
    JSONL = "jsonl"
    JSONL_GZ = "jsonl.gz"
    JSONL_ZST = "jsonl.zst"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    DATASET = "dataset"


def command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="Texts: a file, also .gz, .zst, .bz2 or .xz; a folder; or - for stdin.",
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="File for the results, one per text; - for stdout."),
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue where OUT ends; start if there is no OUT.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again, and discard OUT.")
    ] = False,
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            help="Format of IN; auto follows its name. text: each line is a text; in a folder, each"
            " file.",
        ),
    ] = Form.AUTO,
    to: Annotated[
        OutForm, typer.Option("--to", help="Format of OUT; auto follows its name.")
    ] = OutForm.AUTO,
    text_field: Annotated[
        str | None,
        typer.Option(
            help="Column of the text, if lines or rows have columns of their own; all but this and"
            " the ID are ignored.",
            show_default=False,
        ),
    ] = None,
    id_field: Annotated[
        str | None,
        typer.Option(help="Column of the ID, which comes back as custom_id.", show_default=False),
    ] = None,
    encoding: Encoding = UTF8,
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

    IN may hold JSON lines, lines of text or a table; docs/client.md lists what is read.

    A JSON line is an object such as {"custom_id": "a", "text": "any text"}; docs/bulk.md lists its
    fields. Blank JSON lines are skipped. The result of a bad line is its error.

    OUT.state keeps the progress. After Ctrl-C, kill -9 or a restart of the service, --resume
    continues and no text is scored twice. It removes an incomplete last line of OUT.
    """
    if resume and overwrite:
        raise CommandFailed("Give either --resume or --overwrite, not both.", USAGE)
    if resume and target == STDOUT:
        raise CommandFailed("Give a file for OUT to use --resume.", USAGE)
    options = {"on_error": "skip"}
    if outputs:
        options["outputs"] = ",".join(outputs)
    if top_k is not None:
        options["top_k"] = str(top_k)
    if model is not None:
        options["model"] = model
    reading = Reading(form.value, Columns(text_field, id_field), codec_of(encoding))
    waits = Waits()
    with (
        ended_by_signals(),
        connect(url, headers, patience_s=patience_s, on_wait=waits.note) as client,
        connect(url, headers, timeout_s=PROBE_S, patience_s=0) as probe,
        _planned(Plan(source, target, options, resume, overwrite, keep), to.value) as run,
    ):
        waits.ask = lambda: _readiness(probe)
        plan, also, finish = run
        with (
            opened_input(source, reading, plan.target.parent) as lines,
            Target(plan.target, also) as written,
        ):
            bulk = Bulk(client, plan, lines, written)
            summary = _run(bulk, plan, waits)
            if isinstance(summary, Summary):
                _export(finish, plan)
                show = partial(_line_of, unit=lines.unit, text_field=text_field or TEXT)
                return _report(summary, target, show, as_json=as_json)
            return summary


class Waits:
    """Says what a run waits for, once for each reason between two results."""

    def __init__(self) -> None:
        """Wait for nothing."""
        self.reason = ""
        self.ask: Callable[[], str] = str
        self._said = ""
        self._has_results = False

    def note(self, reason: str) -> None:
        """Take a reason to wait, and say it unless it is the last one."""
        self.reason = reason
        kind = re.sub(r"\d+", "0", reason)
        if kind != self._said:
            self._said = kind
            say(f"Waiting: {reason}")

    def look(self) -> None:
        """Ask the service why no result comes; a busy worker is no news after the first result."""
        reason = self.ask()
        if reason and not (reason == AT_WORK and self._has_results):
            self.note(reason)

    def over(self) -> None:
        """A result has come."""
        self.reason = self._said = ""
        self._has_results = True


def _readiness(probe: Client) -> str:
    """Why the service scores nothing now, or that it has other work."""
    try:
        probe.get("/readyz")
    except EvascoreError as error:
        return sentence_of(error)
    return AT_WORK


@contextmanager
def _planned(plan: Plan, to: To) -> Iterator[tuple[Plan, BinaryIO | None, Callable[[], None]]]:
    """Choose the file of result lines for OUT, and what makes OUT of it at the end."""
    if plan.target == STDOUT:
        if to not in ("auto", "jsonl"):
            raise CommandFailed("stdout gets JSON lines; give a file for another format.", USAGE)
        with tempfile.TemporaryDirectory() as folder:
            inner = replace(plan, target=Path(folder) / "results.jsonl", is_resumable=False)
            check_paths(inner)
            yield inner, sys.stdout.buffer, lambda: None
        return
    check_outside(plan.target, plan.source)
    form = form_of(plan.target, to)
    if form == "jsonl":
        check_paths(plan)
        yield plan, None, lambda: None
        return
    check_not_input(plan.target, plan.source)
    check_target(plan.target, form)
    lines = plan.target.with_name(plan.target.name + ".lines")
    inner = replace(plan, target=lines)
    if plan.target.exists() and not (plan.overwrite or inner.state_path.exists()):
        raise BulkRefused(f"{plan.target} exists; replace it with --overwrite.")
    check_paths(inner)
    yield inner, None, lambda: export(lines, plan.target, form)


def _run(bulk: Bulk, plan: Plan, waits: Waits) -> Summary | int:
    """Run it; return its summary, or the exit code if it was interrupted."""
    try:
        with progress_bar("scored", bulk.num_lines, bulk.num_done) as tell:

            def on_progress(num_done: int) -> None:
                waits.over()
                tell(num_done)

            return bulk.run(on_progress, waits.look)
    except KeyboardInterrupt:
        waited = f", while waiting: {waits.reason}" if waits.reason else "."
        with suppress(OSError):
            say(
                f"Interrupted at {bulk.num_done:,} of {counted(bulk.num_lines, 'line')}{waited}"
                f" {_go_on(plan)}"
            )
        return INTERRUPTED
    except ModelChanged as error:
        raise CommandFailed(f"{error} {_go_on_with(plan)}") from None
    except InputRefused:
        raise
    except EvascoreError as error:
        message = f"{sentence_of(error)} {_go_on(plan)}"
        raise CommandFailed(message, exit_code_of(error)) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        where = error.filename or plan.target
        raise CommandFailed(f"{where}: {error.strerror}. {_go_on(plan)}", FILES) from None
    finally:
        if not plan.is_resumable:
            bulk.give_up()


def _export(finish: Callable[[], None], plan: Plan) -> None:
    """Make OUT of the result lines, which stay if that fails.

    Raises:
        CommandFailed: OUT cannot be written.
    """
    try:
        finish()
    except OSError as error:
        message = f"{error.filename or plan.target}: {error.strerror}. {_go_on(plan)}"
        raise CommandFailed(message, FILES) from None


def _report(
    summary: Summary, target: Path, show: Callable[[ErrorKind], str], *, as_json: bool
) -> int:
    """Print what a run did; return the exit code.

    Args:
        show: describes a kind of errors in one line.
    """
    if as_json and target != STDOUT:
        show_json(asdict(summary))
    else:
        failed = f", {summary.num_failed:,} of them with an error" if summary.num_failed else ""
        name = "The output" if target == STDOUT else str(target)
        say(f"{name} is complete: {counted(summary.num_lines, 'line')}{failed}.")
        for kind in summary.errors[:MAX_KINDS]:
            say(f"  {show(kind)}")
        if len(summary.errors) > MAX_KINDS:
            say(f"  and {counted(len(summary.errors) - MAX_KINDS, 'more kind')} of errors")
    return SOME_FAILED if summary.num_failed else 0


def _line_of(kind: ErrorKind, *, unit: Unit, text_field: str) -> str:
    hint = ""
    if kind.type == "malformed_body" and "not valid JSON" in kind.detail:
        hint = " (if each line is a text itself, give --format text)"
    elif kind.detail.endswith("must be a JSON object"):
        hint = f', such as {{"{text_field}": "any text"}}'
    # The ID of a file is its path.
    is_named = unit == "file" and kind.first_custom_id is not None
    place = f"{unit} {kind.first_custom_id if is_named else f'{kind.first_line:,}'}"
    where = place if kind.count == 1 else f"first in {place}"
    return f"{kind.count:,} x {kind.type}, {where}: {kind.detail}{hint}"


def _go_on_with(plan: Plan) -> str:
    """How to go on when the model has changed."""
    if not plan.is_resumable:
        return _go_on(plan)
    return (
        "Wait until the service serves the earlier model again, and run the same command"
        f"{'' if plan.resume else ' with --resume'}; or score all lines by the other model with"
        " --overwrite."
    )


def _go_on(plan: Plan) -> str:
    if not plan.is_resumable:
        return "OUT is stdout, so the run cannot be resumed."
    if plan.resume:
        return "Run the same command again to continue."
    return "Run the same command with --resume to continue."
