"""Runs a worker that reports how its CPU time divides between the model and the rest.

`celery -A bench.timed_worker worker ...` is `celery -A worker.main worker ...` with a clock
around the scorer. When the worker ends it writes one JSON line per micro-batch to stdout.
"""

import atexit
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import orjson

from model import Scorer, Slice, SliceScores
from worker.main import app as app  # what Celery looks for

_batches: list[dict[str, float]] = []


def _timed(score: Callable[..., list[SliceScores]]) -> Callable[..., list[SliceScores]]:
    @wraps(score)
    def timed(scorer: Scorer, slices: Sequence[Slice], **options: Any) -> list[SliceScores]:
        began = time.process_time()
        results = score(scorer, slices, **options)
        ended = time.process_time()
        _batches.append({"texts": len(slices), "began_cpu_s": began, "ended_cpu_s": ended})
        return results

    return timed


def _tell() -> None:
    for batch in _batches:
        print(orjson.dumps(batch).decode(), flush=True)


Scorer.score_slices = _timed(Scorer.score_slices)  # type: ignore[method-assign]
atexit.register(_tell)
