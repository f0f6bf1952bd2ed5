"""Scores a micro-batch; where that fails, scores its halves until the slice at fault is alone."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from contract.errors import OutOfMemory, ScoringFailed, ServiceError
from contract.logs import get_logger
from model import OutOfMemory as ModelOutOfMemory
from model import Scorer, Slice, score_canary
from worker.process.lease import Lease, OwnStatus
from worker.scheduling.batching import Choice
from worker.scheduling.filling import Outcome
from worker.scoring.outcomes import note_micro_batch

log = get_logger(__name__)

# The fields of the model that each result shows.
MODEL_FIELDS = (
    "name",
    "fingerprint",
    "revision",
    "quantization",
    "dtype",
    "backend",
    "is_demo",
)


class ModelBroken(Exception):
    """The model also fails on a plain text: this process cannot score any more."""


class MicroBatchScorer:
    """Scores micro-batches, shows progress in the lease and counts them in the worker's status."""

    def __init__(self, scorer: Scorer, lease: Lease, status: OwnStatus) -> None:
        """Take the parts of one worker."""
        self.info = scorer.info
        self._scorer, self._lease, self._status = scorer, lease, status

    @property
    def model_of_results(self) -> dict[str, Any]:
        """What each result shows of the model that scored it."""
        return {name: getattr(self.info, name) for name in MODEL_FIELDS}

    def score(self, choice: Choice, *, on_out_of_memory: Callable[[], None]) -> list[Outcome]:
        """Return the outcome of each slice of `choice`, in order, and note the times in its jobs.

        Ends the process where the model is broken.
        """
        started_at, started = time.time(), time.monotonic()
        self._lease.begin_batch()
        try:
            outcomes = score_slices(
                self._scorer,
                choice.slices,
                on_pass=self._lease.progress,
                on_out_of_memory=on_out_of_memory,
            )
        except ModelBroken as error:
            _exit_broken(error)
        finally:
            self._lease.end_batch()
        elapsed_s = time.monotonic() - started
        note_micro_batch(choice, started_at, elapsed_s)
        self._count(choice, elapsed_s)
        return outcomes

    def _count(self, choice: Choice, elapsed_s: float) -> None:
        pass_bytes = self._scorer.pass_bytes
        if self._status.pass_bytes != pass_bytes:
            self._status.pass_bytes = pass_bytes
            log.warning("pass_out_of_memory", pass_bytes=pass_bytes)
        self._status.count_micro_batch(choice.num_slices, choice.num_bytes, elapsed_s)
        log.info(
            "micro_batch_scored",
            slices=choice.num_slices,
            bytes=choice.num_bytes,
            jobs=len(choice.shares),
            compute_ms=round(elapsed_s * 1000, 1),
        )


def score_slices(
    scorer: Scorer,
    slices: Sequence[Slice],
    *,
    on_pass: Callable[[int], None],
    on_out_of_memory: Callable[[], None],
) -> list[Outcome]:
    """Return the scores of each slice; a slice that cannot be scored gets an error instead.

    Args:
        on_pass: called after each forward pass, with its number of bytes.
        on_out_of_memory: called when the slices did not fit, before they are halved.

    Raises:
        ModelBroken: the model fails on any text; the jobs must go back to the queue.
    """
    try:
        return list(scorer.score_slices(slices, on_pass=on_pass))
    except ModelOutOfMemory:
        on_out_of_memory()
        failure: ServiceError = OutOfMemory(
            "The text alone does not fit into the worker's memory; split it, or send it later."
        )
    except Exception as error:  # noqa: BLE001 - the edge where any failure becomes an outcome
        # The message of an unknown error may quote the text: only its kind is logged.
        log.error("scoring_failed", error=type(error).__name__, slices=len(slices))
        failure = ScoringFailed(
            "The model failed on this text; if it scores other texts, tell the operator."
        )
        failure.__cause__ = error
    if len(slices) == 1:
        _check_model(scorer)
        return [failure]
    middle = len(slices) // 2
    return [
        outcome
        for half in (slices[:middle], slices[middle:])
        for outcome in score_slices(
            scorer, half, on_pass=on_pass, on_out_of_memory=on_out_of_memory
        )
    ]


def _check_model(scorer: Scorer) -> None:
    try:
        score_canary(scorer)
    except Exception as error:
        raise ModelBroken(type(error).__name__) from error


def _exit_broken(error: ModelBroken) -> NoReturn:
    """End the process and acknowledge nothing.

    The jobs of this micro-batch become suspects: if one of them broke the model, it is found and
    failed.
    """
    log.error("model_broken", error=str(error))
    os._exit(os.EX_SOFTWARE)
