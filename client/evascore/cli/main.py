"""`evascore`: the commands, and what becomes of what they raise."""

import json
import os
import sys
import traceback

import typer

from evascore.cli import bench, bulk, common, doctor, gen_data, next_chars, score
from evascore.errors import EvascoreError, ServiceError
from evascore.transport import UrlInvalid

app = typer.Typer(
    name="evascore",
    help="Score text byte by byte with a running evascore service.",
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
    """Run the command line; return the exit status. No error is more than one line."""
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
        message, code = _told(error)
        _refuse(message, code, error, is_json="--json" in arguments)
        return code


def _told(error: Exception) -> tuple[str, int]:
    """The line and the exit code that an error has."""
    if isinstance(error, common.CommandFailed):
        return str(error), error.exit_code
    if isinstance(error, typer.TyperException):
        return _usage(error), common.USAGE
    if isinstance(error, UrlInvalid):
        return str(error), common.USAGE
    if isinstance(error, EvascoreError):
        return str(error), common.exit_code_of(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}", common.FILES
    # Not its message: it may quote a text.
    at = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(at.filename)}:{at.lineno}"
    return f"a fault of evascore, please report it: {type(error).__name__} at {where}", common.BUG


def _usage(error: typer.TyperException) -> str:
    """What is wrong with the arguments; never what may be a text."""
    message = error.format_message()
    if message.startswith("Got unexpected extra argument"):
        return "too many arguments; a text with spaces belongs in quotes"
    if message.startswith("No such option") and len(message.split()) > 4:
        return "no such option; before a text that begins with a dash put --"
    if not message:
        return "give a command; evascore --help lists them"
    return f"{' '.join(message.split())} (see --help)"


def _refuse(message: str, code: int, error: Exception, *, is_json: bool) -> None:
    if not is_json:
        common.say(" ".join(message.split()))
        return
    told = error.problem if isinstance(error, ServiceError) else {"detail": message}
    typer.echo(json.dumps({"error": told, "exit_code": code}, ensure_ascii=False), err=True)
