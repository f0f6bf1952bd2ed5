"""Runs the command line of lm-eval with the model `evascore`: `python -m evascore.lm_eval`."""

import sys

from evascore.errors import EvascoreError

_MISSING = 'evascore: lm-eval is not installed; install it with: pip install "./client[lm-eval]"'


def main() -> int:
    """Run lm-eval on the arguments of the process; return the exit status."""
    try:
        from lm_eval.__main__ import cli_evaluate

        from evascore.lm_eval import model  # noqa: F401 - importing it registers the model
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("lm_eval"):
            raise
        print(_MISSING, file=sys.stderr)
        return 1
    if "--model" not in sys.argv and "--tasks" in sys.argv:
        sys.argv += ["--model", "evascore"]
    try:
        cli_evaluate()
    except EvascoreError as error:
        print(f"evascore: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
