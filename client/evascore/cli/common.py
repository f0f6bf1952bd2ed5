"""Defines what all subcommands share: options, exit codes, input and output."""

import json
import os
import signal
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

from evascore.constants import DEFAULT_TOP_K, MAX_TOP_K, OUTPUTS
from evascore.errors import (
    CapacityError,
    DependencyError,
    EvascoreError,
    ServiceUnreachable,
    TimedOut,
    Unauthorized,
)
from evascore.http.transport import DEFAULT_URL, KEY_VARIABLE
from evascore.readers.encodings import UTF8, codec_of
from evascore.readers.inputs import STDIN, text_of
from evascore.readers.packages import InputRefused
from evascore.sync import Client

REFUSED = 1
USAGE = 2
TRY_AGAIN = 3
SOME_FAILED = 4
FILES = 5
BUG = 70
INTERRUPTED = 130
BROKEN_PIPE = 141

EXIT_CODES = (
    "Exit status: 0 success; 1 refused or failed; 2 wrong argument or input; 3 the service is "
    "unreachable or too busy, try again; 4 done, but some texts have an error; 5 a file could not "
    "be read or written; 130 interrupted; 141 the reader of stdout ended first."
)

Url = Annotated[
    str, typer.Option("--url", envvar="EVASCORE_URL", help="URL of the service.", metavar="URL")
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        "-H",
        help="Header of every request, as 'Name: value', for a proxy that checks it. Repeatable.",
        metavar="HEADER",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print results and errors as JSON.")]
TimeoutS = Annotated[
    float, typer.Option("--timeout", min=0.001, help="Seconds to wait for a score.")
]
PatienceS = Annotated[
    float,
    typer.Option(
        "--patience", min=0, help="Seconds to retry while the service is unreachable or busy."
    ),
]
Outputs = Annotated[
    list[str] | None,
    typer.Option(
        "--output", "-o", help=f"Add an output to the result: {', '.join(OUTPUTS)}. Repeatable."
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(
        help="Number of likeliest bytes that the output top_k lists at each position: "
        f"1 to {MAX_TOP_K}; {DEFAULT_TOP_K} if not given."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Model that scores: its name, or name@fingerprint; by default that of the service.",
        show_default=False,
    ),
]
Encoding = Annotated[
    str,
    typer.Option(
        help="Encoding of the text, such as utf-8, utf-16, latin-1 or cp1252; bytes scores bytes as"
        " they are."
    ),
]
URL = DEFAULT_URL


class CommandFailed(Exception):
    """Ends the command with a message of one line and an exit code."""

    def __init__(self, message: str, exit_code: int = REFUSED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def connect(
    url: str,
    headers: list[str] | None,
    *,
    timeout_s: float = 300,
    patience_s: float = 10,
    model: str | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Client:
    """Make a client of the service at `url`, whose texts `model` scores.

    Args:
        headers: as on the command line.
        on_wait: called with the reason when a request is sent again after a pause.
    """
    named = named_headers(headers)
    return Client(
        url,
        timeout_s=timeout_s,
        patience_s=patience_s,
        model=model,
        headers=named,
        on_wait=on_wait,
    )


def named_headers(given: list[str] | None) -> dict[str, str]:
    """The headers of the command line by their names.

    Raises:
        CommandFailed: one is not in the form 'Name: value', or holds an API key.
    """
    headers = {}
    for header in given or ():
        name, colon, value = header.partition(":")
        if not (name and colon):
            raise CommandFailed("Give --header in the form 'Name: value'.", USAGE)
        if name.lower() == "authorization" and value.lower().split()[:1] == ["bearer"]:
            raise CommandFailed(
                "Other users of the machine can read an API key in --header. Set the variable"
                f" {KEY_VARIABLE} instead.",
                USAGE,
            )
        headers[name] = value.strip()
    return headers


def exit_code_of(error: Exception) -> int:
    """The exit code for an error of the package."""
    if isinstance(error, InputRefused):
        return USAGE
    passing = CapacityError | DependencyError | ServiceUnreachable | TimedOut
    return TRY_AGAIN if isinstance(error, passing) else REFUSED


def sentence_of(error: EvascoreError) -> str:
    """The message of an error, ended as a sentence, and what to do if an API key is missing."""
    message = str(error)
    if not message.endswith((".", "?", "!")):
        message += "."
    if isinstance(error, Unauthorized):
        message += f" Set the variable {KEY_VARIABLE} to your key."
    return message


def as_bytes(argument: str) -> bytes:
    """The bytes of a command-line argument, which need not be UTF-8."""
    return os.fsencode(argument)


def read_input(text: str | None, file: Path | None, encoding: str = UTF8) -> bytes:
    """Read the text of a command: its argument, a file, or stdin.

    A file may be compressed. A byte order mark is skipped, and line ends of Windows are reported.

    Raises:
        CommandFailed: two texts are given, or none.
        InputRefused: the file is not in the encoding.
    """
    if text is not None and file is not None:
        raise CommandFailed("Give either a text or --file, not both.", USAGE)
    if file is None and text is not None and text != "-":
        return as_bytes(text)
    if file is None and text is None and sys.stdin.isatty():
        raise CommandFailed("Give a text, --file, or a text on stdin.", USAGE)
    content, has_windows_ends = text_of(file or STDIN, codec_of(encoding))
    if has_windows_ends:
        say("The lines end in CR LF (Windows); both characters are scored.")
    return content


@contextmanager
def opened(path: Path | None, mode: str) -> Iterator[BinaryIO]:
    """Open a file in `mode` (`rb` or `wb`); without a path, use stdin or stdout."""
    if path is None or str(path) == "-":
        stream = sys.stdin.buffer if mode == "rb" else sys.stdout.buffer
        yield stream
        stream.flush() if mode == "wb" else None
        return
    with path.open(mode) as file:
        yield file  # type: ignore[misc]


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, unless they are ignored (`nohup`)."""
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in former.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def say(message: str) -> None:
    """Print a line for the user on stderr."""
    typer.echo(f"evascore: {message}", err=True)


def show_json(value: Any) -> None:
    """Print a line of JSON on stdout, in UTF-8 whatever the encoding of the terminal."""
    typer.echo(json.dumps(value, ensure_ascii=False).encode())


def show_table(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        typer.echo(f"{name:<{width}}  {value}")


class Rate(ProgressColumn):
    """Shows the recent speed in texts per second."""

    def render(self, task: Task) -> RichText:
        """The speed, or a dash before it is known."""
        return RichText(f"{task.speed:,.1f} texts/s" if task.speed else "- texts/s")


@contextmanager
def progress_bar(what: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a progress bar with speed and remaining time on stderr, if that is a terminal.

    Yields:
        A function that is called with the number of texts done so far.
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
