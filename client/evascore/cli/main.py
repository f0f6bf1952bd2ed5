"""Builds the command `evascore` and turns exceptions into messages and exit codes."""

import json
import os
import re
import sys
import traceback

import typer

from evascore.cli import bench, bulk, common, doctor, gen_data, next_chars, score
from evascore.errors import EvascoreError, ServiceError, Unauthorized
from evascore.network import NetworkInvalid
from evascore.transport import KEY_VARIABLE, HeaderInvalid, KeyInvalid, UrlInvalid

app = typer.Typer(
    name="evascore",
    help="Score text byte by byte with a running evascore service. If it needs an API key, put the "
    f"key into the variable {KEY_VARIABLE}.",
    epilog=common.EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("score")(score.command)
app.command("bulk")(bulk.command)
app.command("next-chars")(next_chars.command)
app.command("bench")(bench.command)
app.command("gen-data")(gen_data.command)
app.command("doctor")(doctor.command)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status; an error is one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        status = app(arguments, prog_name="evascore", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return common.BROKEN_PIPE
    except KeyboardInterrupt:
        return common.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the edge of the program
        message, code = _message_and_code(error)
        _refuse(message, code, error, is_json="--json" in arguments)
        return code


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
        return f"{error.filename or 'A file'}: {error.strerror or error}", common.FILES
    # Its own message may quote a text, so it is not shown.
    at = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(at.filename)}:{at.lineno}"
    return f"Bug in evascore, please report it: {type(error).__name__} at {where}.", common.BUG


def _usage(error: typer.TyperException) -> str:
    """Describe a wrong argument, without quoting what may be a text."""
    message = error.format_message()
    if message.startswith("Got unexpected extra argument"):
        return "Too many arguments; put a text that has spaces in quotes."
    if message.startswith("No such option") and len(message.split()) > 4:
        return "No such option; put -- before a text that begins with a dash."
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
