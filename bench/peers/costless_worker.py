"""Runs a worker of evascore whose model costs nothing once it is warm.

`celery -A bench.peers.costless_worker worker ...` is `celery -A worker.main worker ...` otherwise.
"""

from bench.peers.costless import make_costless
from model import Scorer
from worker.main import app as app  # what Celery looks for

_warm_up = Scorer.warm_up


def _warm_up_and_make_costless(scorer: Scorer) -> None:
    _warm_up(scorer)
    make_costless(scorer)


# Warming up is the last step of loading; the canary text before it needs the real model.
Scorer.warm_up = _warm_up_and_make_costless  # type: ignore[method-assign, assignment]
