"""Implements `evascore doctor`, which checks the service and says how to repair it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from evascore.checks import Check, is_service_folder, of_machine, of_service
from evascore.cli.common import (
    REFUSED,
    URL,
    USAGE,
    AsJson,
    CommandFailed,
    Headers,
    Url,
    connect,
    show_json,
)

_MARKS = {"ok": "OK", "warning": "WARN", "failed": "FAIL", "skipped": "-"}


def command(
    folder: Annotated[
        Path | None,
        typer.Option(
            "--service-folder",
            help="Folder of the service's code, to check its machine too; by default the current "
            "folder, if it has that code.",
        ),
    ] = None,
    url: Url = URL,
    headers: Headers = None,
    as_json: AsJson = False,
) -> int:
    """Check the service, and its machine if run there; each line is OK or says what to do."""
    found: list[Check] = []
    with connect(url, headers, patience_s=0) as client:
        for check in of_service(client):
            found.append(check)
            _show(check, as_json)
    if folder is not None and not is_service_folder(folder):
        raise CommandFailed(
            f"{folder} does not contain the service's code; give the folder of its repository.",
            USAGE,
        )
    here = folder or Path()
    if is_service_folder(here):
        for check in of_machine(here.absolute()):
            found.append(check)
            _show(check, as_json)
    elif not as_json:
        typer.echo("      To check the machine too, run this there with --service-folder.")
    if as_json:
        show_json({"checks": [asdict(check) for check in found]})
    return REFUSED if any(check.state == "failed" for check in found) else 0


def _show(check: Check, as_json: bool) -> None:
    if as_json:
        return
    typer.echo(f"{_MARKS[check.state]:<4}  {check.name:<12}  {_line_of(check)}")


def _line_of(check: Check) -> str:
    """The finding and the remedy. After a question, the remedy is its own sentence."""
    detail, remedy = check.detail, check.remedy
    if not remedy:
        return detail
    if detail.endswith("?"):
        return f"{detail} {remedy[:1].upper()}{remedy[1:]}"
    return f"{detail.rstrip('.')}; {remedy}"
