"""Runs Celery's command line with a model that fails, as on a GPU that other programs use."""

import runpy
import sys
from collections.abc import Callable

from model import OutOfMemory, Scorer
from worker.scoring import micro_batch_scorer


def _raises(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def _fail_to_warm_up(error: Exception) -> None:
    Scorer.warm_up = _raises(error)  # type: ignore[method-assign]


def _fail_after_the_start() -> None:
    """Scoring fails once the model is warm; it was checked by its canary before."""
    warm_up = Scorer.warm_up

    def lose_memory(scorer: Scorer) -> None:
        warm_up(scorer)
        Scorer.score_slices = _raises(OutOfMemory("no room"))  # type: ignore[method-assign, assignment]

    Scorer.warm_up = lose_memory  # type: ignore[method-assign]
    micro_batch_scorer.MEMORY_WAIT_S = 0.0


def main() -> None:
    """Take the kind of failure from the arguments; the others are Celery's."""
    kind = sys.argv.pop(1)
    if kind == "unknown":
        _fail_to_warm_up(RuntimeError("CUDA error: all devices\nare busy"))
    elif kind == "memory":
        _fail_to_warm_up(OutOfMemory("a pass of 256 bytes did not fit"))
    else:
        _fail_after_the_start()
    runpy.run_module("celery", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
