"""What all commands share: their options, their exit codes, how they speak."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text as RichText

from evascore.errors import CapacityError, DependencyError, ServiceUnreachable, TimedOut
from evascore.sync import Client
from evascore.transport import DEFAULT_URL

REFUSED = 1
USAGE = 2
TRY_AGAIN = 3
SOME_FAILED = 4
FILES = 5
BUG = 70
INTERRUPTED = 130
BROKEN_PIPE = 141

EXIT_CODES = (
    "exit status: 0 done; 1 refused or failed; 2 wrong argument or input; 3 the service is away or "
    "too busy, try again; 4 done, and some texts have an error; 5 a file could not be read or "
    "written; 130 interrupted."
)

Url = Annotated[
    str, typer.Option("--url", envvar="EVASCORE_URL", help="Where the service is.", metavar="URL")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs, errors included.")]
TimeoutS = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds a text may take.")]
PatienceS = Annotated[
    float,
    typer.Option("--patience", min=0, help="Seconds to go on while the service is away or busy."),
]
Outputs = Annotated[
    list[str] | None,
    typer.Option("--output", "-o", help="Also bytes, top_k or curvature; may be repeated."),
]
TopK = Annotated[int | None, typer.Option(help="How many likeliest bytes the output top_k lists.")]
URL = DEFAULT_URL


class CommandFailed(Exception):
    """The command ends here, with this one line."""

    def __init__(self, message: str, exit_code: int = REFUSED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def connect(url: str, *, timeout_s: float = 300, patience_s: float = 10) -> Client:
    """A client of the service at `url`."""
    return Client(url, timeout_s=timeout_s, patience_s=patience_s)


def exit_code_of(error: Exception) -> int:
    """The exit code that an error of the package has."""
    passing = CapacityError | DependencyError | ServiceUnreachable | TimedOut
    return TRY_AGAIN if isinstance(error, passing) else REFUSED


def as_bytes(argument: str) -> bytes:
    """The bytes of an argument as they were typed; they need not be UTF-8."""
    return os.fsencode(argument)


def read_input(text: str | None, file: Path | None) -> bytes:
    """The text that a command is given: as its argument, in a file, or on stdin.

    Raises:
        CommandFailed: it is given twice, or not at all.
    """
    if text is not None and file is not None:
        raise CommandFailed("give either a text or --file, not both", USAGE)
    if file is not None:
        return file.read_bytes()
    if text is not None and text != "-":
        return as_bytes(text)
    if text is None and sys.stdin.isatty():
        raise CommandFailed("give a text, --file, or something on stdin", USAGE)
    return sys.stdin.buffer.read()


@contextmanager
def opened(path: Path | None, mode: str) -> Iterator[BinaryIO]:
    """A file in `mode` (`rb` or `wb`), or stdin or stdout without one."""
    if path is None or str(path) == "-":
        stream = sys.stdin.buffer if mode == "rb" else sys.stdout.buffer
        yield stream
        stream.flush() if mode == "wb" else None
        return
    with path.open(mode) as file:
        yield file  # type: ignore[misc]


def say(message: str) -> None:
    """One line to the person at the terminal."""
    typer.echo(f"evascore: {message}", err=True)


def show_json(value: Any) -> None:
    """One line of JSON on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def show_table(rows: Iterable[tuple[str, str]]) -> None:
    """Names and values, in columns."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        typer.echo(f"{name:<{width}}  {value}")


class Rate(ProgressColumn):
    """Texts per second of late."""

    def render(self, task: Task) -> RichText:
        """The figure, once there is one."""
        return RichText(f"{task.speed:,.1f} texts/s" if task.speed else "- texts/s")


@contextmanager
def progress_bar(what: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar on stderr with rate and remaining time, where a person looks on.

    Yields:
        What takes the number that is done by now.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    bar = Progress(
        *columns, console=console, disable=not console.is_terminal, speed_estimate_period=30
    )
    with bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda num_done: bar.update(task, completed=num_done)
