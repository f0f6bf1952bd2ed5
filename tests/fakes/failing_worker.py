"""Runs Celery's command line with a model that cannot be warmed up, as on a GPU that is taken."""

import runpy
import sys

from model import OutOfMemory, Scorer

_ERRORS = {
    "unknown": RuntimeError("CUDA error: all devices\nare busy"),
    "memory": OutOfMemory("a pass of 256 bytes did not fit"),
}


def main() -> None:
    """Take the name of the error from the arguments; the others are Celery's."""
    error = _ERRORS[sys.argv.pop(1)]

    def fail(_scorer: Scorer) -> None:
        raise error

    Scorer.warm_up = fail  # type: ignore[method-assign]
    runpy.run_module("celery", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
