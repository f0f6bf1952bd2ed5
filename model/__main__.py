"""`python -m model score`: scores JSON lines without the service."""

import argparse
import os
import sys
from pathlib import Path

from tqdm import tqdm

from model.errors import ModelError
from model.ndjson import score_lines
from model.ops.backend import KERNELS
from model.quantization import QUANTIZATIONS
from model.scorer import DTYPES, Scorer

DEMO_CHECKPOINT = Path(__file__).parent / "checkpoints" / "demo"
CACHE_DIR = Path.home() / ".cache" / "evascore"
BROKEN_PIPE = 141  # what a shell reports of a process that SIGPIPE ended
INTERRUPTED = 130

EPILOG = """\
input, one JSON object per line:
  {"custom_id": "a", "text": "any text", "outputs": ["bytes", "top_k", "curvature"], "top_k": 5}
  {"custom_id": "b", "text_b64": "/wA="}
  {"custom_id": "c", "context": "1 + 1 = ", "continuations": ["2", "3"]}
output, in the same order:
  {"custom_id": "a", "result": {"num_bytes": 8, "log_likelihood_nats": ...}}
  {"custom_id": "b", "error": {"code": "...", "message": "...", "pointer": "..."}}

exit status: 0 when the input was read to its end, whether or not single lines failed; their number
is told on stderr. 1 when the model cannot be loaded, 2 for a wrong argument."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _score(options)
    except ModelError as error:
        print(f"model: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED


def _score(options: argparse.Namespace) -> int:
    scorer = Scorer.load(
        options.model,
        device=options.device,
        dtype=options.dtype,
        kernels=options.kernels,
        quantization=options.quantization,
        cache_dir=options.cache_dir,
        pass_bytes=options.pass_bytes,
    )
    with tqdm(unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as progress:
        num_lines, num_failed = score_lines(
            sys.stdin.buffer, sys.stdout.buffer, scorer, on_pass=progress.update
        )
    if num_failed:
        print(f"model: {num_failed} of {num_lines} lines were not scored", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser(
        "score",
        help="read JSON lines from stdin, write their scores to stdout",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument(
        "--model",
        default=str(DEMO_CHECKPOINT),
        help="folder of a checkpoint, or its name on the Hub (default: the bundled demo)",
    )
    score.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    score.add_argument("--dtype", default="auto", choices=["auto", *DTYPES])
    score.add_argument(
        "--kernels",
        default="auto",
        choices=KERNELS,
        help="auto: triton on GPUs of compute capability 8.0 and newer, else torch",
    )
    score.add_argument(
        "--quantization",
        default="none",
        choices=QUANTIZATIONS,
        help="form of the weights: int8 halves and nf4 quarters the memory of bfloat16",
    )
    score.add_argument(
        "--cache-dir",
        type=Path,
        default=CACHE_DIR,
        help="folder in which quantized weights are kept for the next start (default: %(default)s)",
    )
    score.add_argument(
        "--pass-bytes",
        type=_positive,
        help="bytes of one pass through the model; fewer need less memory",
    )
    return parser


def _positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
