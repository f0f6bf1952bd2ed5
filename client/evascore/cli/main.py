"""Builds the command `evascore` and turns exceptions into messages and exit codes."""

import inspect
import io
import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer

from evascore import __version__
from evascore.cli import bench, bulk, common, doctor, gen_data, jobs, next_chars, score
from evascore.errors import EvascoreError, ServiceError, Unauthorized
from evascore.http.network import NetworkInvalid
from evascore.http.transport import KEY_VARIABLE, HeaderInvalid, KeyInvalid, UrlInvalid

app = typer.Typer(
    name="evascore",
    help="Score text byte by byte with a running evascore service. If it needs an API key, put the "
    f"key into the variable {KEY_VARIABLE}.",
    epilog=common.EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _whole_paragraphs(command: Callable[..., Any]) -> str:
    """The help of a command. Typer keeps the line breaks of a docstring, which fit no terminal."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


for _name, _command in (
    ("score", score.command),
    ("bulk", bulk.command),
    ("next-chars", next_chars.command),
    ("status", jobs.status),
    ("get", jobs.get),
    ("cancel", jobs.cancel),
    ("bench", bench.command),
    ("gen-data", gen_data.command),
    ("doctor", doctor.command),
):
    app.command(_name, help=_whole_paragraphs(_command))(_command)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"evascore {__version__}")
        raise typer.Exit


@app.callback()
def _options_of_all(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status; an error is one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # An encoding such as Latin-1 lacks most characters; they are shown as escapes.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = app(arguments, prog_name="evascore", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except BrokenPipeError:
        return _end_of_pipe()
    except SystemExit as ended:
        # Typer ends the process with status 1 where a command meets a broken pipe.
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        return _end_of_pipe()
    except KeyboardInterrupt:
        return common.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the edge of the program
        message, code = _message_and_code(error)
        _refuse(message, code, error, is_json="--json" in arguments)
        return code


def _end_of_pipe() -> int:
    """The exit status when nobody reads stdout any more."""
    # The interpreter flushes stdout once more when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return common.BROKEN_PIPE


def _message_and_code(error: Exception) -> tuple[str, int]:
    """The message and the exit code for an error."""
    if isinstance(error, common.CommandFailed):
        return str(error), error.exit_code
    if isinstance(error, typer.TyperException):
        return _usage(error), common.USAGE
    if isinstance(error, UrlInvalid | KeyInvalid | HeaderInvalid | NetworkInvalid):
        return str(error), common.USAGE
    if isinstance(error, Unauthorized):
        return common.sentence_of(error), common.REFUSED
    if isinstance(error, EvascoreError):
        return str(error), common.exit_code_of(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'The output'}: {error.strerror or error}", common.FILES
    # Its own message may quote a text, so it is not shown.
    at = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(at.filename)}:{at.lineno}"
    return f"Bug in evascore, please report it: {type(error).__name__} at {where}.", common.BUG


def _usage(error: typer.TyperException) -> str:
    """Describe a wrong argument, without quoting what may be a text."""
    message = error.format_message()
    if message.startswith("Got unexpected extra argument"):
        return "Too many arguments; put a text that has spaces in quotes."
    if message.startswith("No such option"):
        close = getattr(error, "possibilities", None)
        meant = f"did you mean {' or '.join(sorted(close))}? Put" if close else "put"
        return f"No such option; {meant} -- before a text that begins with a dash."
    if not message:
        return "Give a command; `evascore --help` lists them."
    for words, plain in _PLAIN:
        message = re.sub(words, plain, message)
    return f"{' '.join(message.split())} (see --help)"


# The words of typer and pydantic, and ours for the same.
_PLAIN = (
    (r"Value error, .* is not one of", "must be one of"),
    (r"Input should be a valid integer.*", "must be an integer"),
    (r"Input should be a valid number.*", "must be a number"),
    (r"Input should be greater than or equal to", "must be at least"),
    (r"Input should be less than or equal to", "must be at most"),
    (r"Input should be", "must be"),
    (r"^Option (\S+) requires an argument", r"Give a value to \1"),
    (r"^Missing argument (\S+?)\.", r"Give the argument \1."),
)


def _refuse(message: str, code: int, error: Exception, *, is_json: bool) -> None:
    if not is_json:
        common.say(" ".join(message.split()))
        return
    problem = error.problem if isinstance(error, ServiceError) else {"detail": message}
    typer.echo(json.dumps({"error": problem, "exit_code": code}, ensure_ascii=False), err=True)
