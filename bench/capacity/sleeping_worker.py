"""Runs a worker that sleeps for the time of a micro-batch, as a host does while its GPU computes.

`celery -A bench.capacity.sleeping_worker worker ...` is `celery -A worker.main worker ...`
otherwise. Other programs slow it down less than a worker that computes, so that the queueing model
can be checked beside them.
"""

import time
from collections.abc import Sequence
from typing import Any

from bench.capacity.sleeping_times import FIXED_S, S_PER_BYTE
from model import Scorer, ScoreRequest, Slice, SliceScores
from worker.main import app as app  # what Celery looks for

_warm_up = Scorer.warm_up


def _warm_up_and_put_to_sleep(scorer: Scorer) -> None:
    _warm_up(scorer)
    [canned] = scorer.score_slices([Slice(ScoreRequest(b"A short text."))])

    def score_slices(slices: Sequence[Slice], **_: Any) -> list[SliceScores]:
        time.sleep(FIXED_S + S_PER_BYTE * sum(each.num_bytes for each in slices))
        return [canned] * len(slices)

    scorer.score_slices = score_slices  # type: ignore[method-assign]


# Warming up is the last step of loading; the canary text before it needs the real model.
Scorer.warm_up = _warm_up_and_put_to_sleep  # type: ignore[method-assign, assignment]
