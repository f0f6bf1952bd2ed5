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
    sys.argv += _model_if_none(sys.argv)
    try:
        cli_evaluate()
    except EvascoreError as error:
        print(f"evascore: {error}", file=sys.stderr)
        return 1
    return 0


def _model_if_none(arguments: list[str]) -> list[str]:
    """The option that chooses this model, if the arguments name tasks and no model."""
    # The value of a short option may follow it at once: `-Mhf`.
    names = {each.partition("=")[0] if each[:2] == "--" else each[:2] for each in arguments}
    is_asked = not names.isdisjoint(("--tasks", "-t")) and names.isdisjoint(("--model", "-M"))
    return ["--model", "evascore"] if is_asked else []


if __name__ == "__main__":
    sys.exit(main())
