"""Runs Celery's command line with a model that fails, or that waits for the test.

It fails as on a GPU that other programs use. It waits so that a test can act while a job is scored,
however fast the machine is.
"""

import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def _wait_when_told(gate: Path, held: Path) -> None:
    """Hold each micro-batch before its first pass while the file `gate` exists; then make `held`.

    The model was checked and warmed up before.
    """
    warm_up, score_slices = Scorer.warm_up, Scorer.score_slices

    def wait_and_score(scorer: Scorer, *args: Any, **options: Any) -> Any:
        if gate.exists():
            held.touch()
        while gate.exists():
            time.sleep(0.01)
        return score_slices(scorer, *args, **options)

    def wait_from_now_on(scorer: Scorer) -> None:
        warm_up(scorer)
        Scorer.score_slices = wait_and_score  # type: ignore[method-assign]

    Scorer.warm_up = wait_from_now_on  # type: ignore[method-assign]


def main() -> None:
    """Take the kind of failure from the arguments; the others are Celery's."""
    kind = sys.argv.pop(1)
    if kind == "unknown":
        _fail_to_warm_up(RuntimeError("CUDA error: all devices\nare busy"))
    elif kind == "memory":
        _fail_to_warm_up(OutOfMemory("a pass of 256 bytes did not fit"))
    elif kind == "waiting":
        _wait_when_told(Path(sys.argv.pop(1)), Path(sys.argv.pop(1)))
    else:
        _fail_after_the_start()
    runpy.run_module("celery", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
