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

from model.scorer import Scorer
from worker.main import app as app  # what Celery looks for

_batches: list[dict[str, float]] = []


def _timed(score: Callable[..., list[dict[str, Any]]]) -> Callable[..., list[dict[str, Any]]]:
    @wraps(score)
    def timed(scorer: Scorer, texts: Sequence[Any], **options: Any) -> list[dict[str, Any]]:
        began = time.process_time()
        results = score(scorer, texts, **options)
        ended = time.process_time()
        _batches.append({"texts": len(texts), "began_cpu_s": began, "ended_cpu_s": ended})
        return results

    return timed


def _tell() -> None:
    for batch in _batches:
        print(orjson.dumps(batch).decode(), flush=True)


Scorer.score = _timed(Scorer.score)  # type: ignore[method-assign]
atexit.register(_tell)
