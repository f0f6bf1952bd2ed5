"""Runs `python -m model`: scores JSON lines or predicts next characters, without the service."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from contract.errors import ClientError
from contract.grammar.limits import DEFAULT_LIMITS, NO_LIMITS
from contract.grammar.line_fields import Columns
from contract.grammar.outputs import MAX_NEXT_CHARS
from model.commands.predict_lines import predict_lines
from model.commands.score_lines import score_lines
from model.errors import ModelError
from model.machine.collector import leave_out_loaded_objects
from model.ops.backend import KERNELS
from model.scorer import Scorer
from model.weights.checkpoint import DEMO_CHECKPOINT
from model.weights.loading import DTYPES
from model.weights.quantization import QUANTIZATIONS

CACHE_DIR = Path.home() / ".cache" / "evascore"
BROKEN_PIPE = 141  # the exit status that a shell reports after SIGPIPE
INTERRUPTED = 130

SCORE_EPILOG = """\
input, one JSON object per line:
  {"custom_id": "a", "text": "any text", "outputs": ["bytes", "top_k", "curvature"], "top_k": 5}
  {"custom_id": "b", "text_b64": "/wA="}
  {"custom_id": "c", "context": "1 + 1 = ", "continuations": ["2", "3"]}
  {"custom_id": "d", "text": "a book", "window": {"size": 32767, "stride": 16384}}
  {"custom_id": "e", "text": "any tex", "next_chars": 3}
  {"custom_id": "f", "text": "any text", "spans": "words"}
output, in the same order:
  {"custom_id": "a", "result": {"num_bytes": 8, "log_likelihood_nats": ...}}
  {"custom_id": "b", "error": {"code": "...", "message": "...", "errors": [...], ...}}
A line is accepted or refused as in an upload to POST /batches with the default settings; see
docs/api.md.

exit status:
  0  the input was read to its end; the number of lines that failed is printed on stderr
  1  the model could not be loaded, or the output could not be written
  2  an argument is wrong"""

NEXT_CHARS_EPILOG = """\
input: lines of any bytes; the newline does not belong to the text.
output, one JSON object per line in the same order. With -k 2, for example:
  {"characters": [["e", 0.41], ["a", 0.2]], "other": 0.36, "invalid": 0.01, "undecided": 0.02}
  characters  the likeliest characters with their probabilities
  other       probability of all other characters that the search has seen
  invalid     probability of bytes that are not UTF-8
  undecided   probability of bytes that the search did not follow: no likelier character begins so

A line longer than the model's context gets an error. The exit status is that of score."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ModelError, ClientError) as error:
        print(f"model: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        print(f"model: {error}; the output is not complete", file=sys.stderr)
        _discard_output()
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _discard_output() -> None:
    """Discard what the interpreter still writes to stdout when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _score(options: argparse.Namespace) -> int:
    scorer = _load(options)
    with _progress() as progress:
        num_lines, num_failed = score_lines(
            sys.stdin.buffer,
            sys.stdout.buffer,
            scorer,
            limits=NO_LIMITS if options.unlimited else DEFAULT_LIMITS,
            columns=Columns(options.text_field, options.id_field),
            on_pass=progress.update,
        )
    if num_failed:
        print(
            f"model: {num_failed} of {num_lines} lines failed; their errors are in the output",
            file=sys.stderr,
        )
    return 0


def _predict(options: argparse.Namespace) -> int:
    scorer = _load(options)
    with _progress() as progress:
        num_lines, num_refused = predict_lines(
            sys.stdin.buffer, sys.stdout.buffer, scorer, options.k, on_pass=progress.update
        )
    if num_refused:
        print(
            f"model: {num_refused} of {num_lines} lines failed; their errors are in the output",
            file=sys.stderr,
        )
    return 0


def _load(options: argparse.Namespace) -> Scorer:
    scorer = Scorer.load(
        options.model,
        hub_revision=options.revision,
        device=options.device,
        dtype=options.dtype,
        kernels=options.kernels,
        quantization=options.quantization,
        cache_dir=options.cache_dir,
        pass_bytes=options.pass_bytes,
        is_reproducible=options.reproducible,
    )
    leave_out_loaded_objects()
    return scorer


def _progress() -> tqdm:
    """Return a progress bar of the bytes read; it is hidden unless stderr is a terminal."""
    return tqdm(unit="B", unit_scale=True, disable=not sys.stderr.isatty())


class _Parser(argparse.ArgumentParser):
    """A parser that says in plain words what is wrong with an argument."""

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2 and the message in plain words."""
        message = re.sub(r"^argument (\S+): ", r"\1 ", message)
        message = re.sub(r"invalid choice: (.*) \(choose from (.*)\)", r"is \1; use \2", message)
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"python -m {__package__}",
        description="Score JSON lines, or predict next characters, without the service.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser(
        "score",
        help="read JSON lines from stdin and write their scores to stdout",
        epilog=SCORE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.set_defaults(run=_score)
    score.add_argument(
        "--unlimited",
        action="store_true",
        help="score lines that the service refuses as too large; only the model's limits hold",
    )
    score.add_argument(
        "--text-field",
        metavar="NAME",
        help="column of the text, for lines that are rows of a corpus; other columns are ignored",
    )
    score.add_argument("--id-field", metavar="NAME", help="column of the ID of such a row")
    _add_model_options(score)
    next_chars = commands.add_parser(
        "next-chars",
        help="read lines from stdin and write the likeliest next characters to stdout",
        epilog=NEXT_CHARS_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    next_chars.set_defaults(run=_predict)
    next_chars.add_argument(
        "-k",
        type=_num_characters,
        default=3,
        help=f"number of characters per line, at most {MAX_NEXT_CHARS} (default: 3)",
    )
    _add_model_options(next_chars)
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default=str(DEMO_CHECKPOINT),
        help="folder of a checkpoint, or owner/name on the Hub (default: the bundled demo)",
    )
    parser.add_argument(
        "--revision",
        help="commit, tag or branch on the Hub (default: the commit that was loaded first)",
    )
    parser.add_argument(
        "--device", default="cpu", help="auto, cpu, cuda or cuda:N (default: %(default)s)"
    )
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", *DTYPES],
        help="type of the weights; auto: float32 on a CPU, else bfloat16 (default: %(default)s)",
    )
    parser.add_argument(
        "--kernels",
        default="auto",
        choices=KERNELS,
        help="auto: triton on GPUs of compute capability 8.0 or higher, else torch (default: auto)",
    )
    parser.add_argument(
        "--quantization",
        default="none",
        choices=QUANTIZATIONS,
        help="format of the weights: int8 and fp8 need half and nf4 a quarter of the memory of "
        "bfloat16; fp8 needs a GPU of compute capability 8.9 or 9.0",
    )
    parser.add_argument(
        "--cache-dir",
        type=Path,
        default=CACHE_DIR,
        help="folder that keeps quantized weights for the next start (default: %(default)s)",
    )
    parser.add_argument(
        "--reproducible",
        action="store_true",
        help="score every continuation alone: no bit of its scores depends on other texts",
    )
    parser.add_argument(
        "--pass-bytes",
        type=_positive,
        help="most bytes that one forward pass reads; fewer need less memory",
    )


def _num_characters(value: str) -> int:
    number = _positive(value)
    if number > MAX_NEXT_CHARS:
        raise argparse.ArgumentTypeError(f"is {number}; the limit is {MAX_NEXT_CHARS}, give less")
    return number


def _positive(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"is {value!r}; give a whole number of at least 1")
    return int(value)


if __name__ == "__main__":
    sys.exit(main())
