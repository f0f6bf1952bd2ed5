"""Scores a micro-batch; where that fails, scores its halves until the slice at fault is alone."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from contract.errors import OutOfMemory, ScoringFailed, ServiceError
from contract.logs import get_logger
from contract.service_clock import CLOCK
from model import OutOfMemory as ModelOutOfMemory
from model import Scorer, Slice, score_canary
from worker.process.lease import Lease
from worker.process.own_status import OwnStatus
from worker.scheduling.batching import Choice
from worker.scheduling.filling import Outcome
from worker.scoring.outcomes import note_micro_batch, num_texts_ended

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


# Another program may need memory for a moment; the worker waits so long for it to come back.
MEMORY_WAIT_S = 30.0
_MEMORY_LOOK_S = 0.5


class ModelBroken(Exception):
    """The model also fails on a plain text: this process cannot score any more."""


class MemoryTaken(Exception):
    """Not even a plain text fits into memory: other programs took what this process needs."""


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

        Raises:
            MemoryTaken: nothing fits; the jobs must go back to the queue, and none is at fault.
        """
        started_at, started = CLOCK.now(), time.monotonic()
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
        self._status.count_micro_batch(
            choice.num_slices, choice.num_bytes, elapsed_s, num_texts=num_texts_ended(choice)
        )
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
        on_out_of_memory: called once if slices fit apart that did not fit together.

    Raises:
        ModelBroken: the model fails on any text; the jobs must go back to the queue.
        MemoryTaken: no text fits; the jobs must go back to the queue.
    """
    outcomes, were_too_many = _Attempt(scorer, on_pass).score(slices)
    if were_too_many:
        on_out_of_memory()
    return outcomes


class _Attempt:
    """The attempt to score one micro-batch; it waits for memory once at most."""

    def __init__(self, scorer: Scorer, on_pass: Callable[[int], None]) -> None:
        self._scorer, self._on_pass = scorer, on_pass
        self._waits_until: float | None = None

    def score(
        self, slices: Sequence[Slice], *, is_again: bool = False
    ) -> tuple[list[Outcome], bool]:
        """Score slices, in halves where that fails; also tell whether some fit apart alone."""
        try:
            return list(self._scorer.score_slices(slices, on_pass=self._on_pass)), False
        except ModelOutOfMemory:
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
            if self._had_to_wait() and not is_again:
                return self.score(slices, is_again=True)
            return [failure], False
        middle = len(slices) // 2
        first, were_too_many_first = self.score(slices[:middle])
        second, were_too_many_second = self.score(slices[middle:])
        outcomes = [*first, *second]
        # A text that does not fit alone says nothing of how many fit together.
        is_sum_too_large = isinstance(failure, OutOfMemory) and not any(
            isinstance(each, OutOfMemory) for each in outcomes
        )
        return outcomes, is_sum_too_large or were_too_many_first or were_too_many_second

    def _had_to_wait(self) -> bool:
        """Check that the model scores a plain text; return whether it had to wait for memory.

        Raises:
            ModelBroken, MemoryTaken
        """
        num_waits = 0
        while True:
            try:
                score_canary(self._scorer)
            except ModelOutOfMemory:
                self._wait()
                num_waits += 1
            except Exception as error:
                raise ModelBroken(type(error).__name__) from error
            else:
                return num_waits > 0

    def _wait(self) -> None:
        now = time.monotonic()
        if self._waits_until is None:
            self._waits_until = now + MEMORY_WAIT_S
            log.warning("waiting_for_memory", max_wait_s=MEMORY_WAIT_S)
        if now >= self._waits_until:
            raise MemoryTaken
        # Else the lease would end this process as one whose model hangs.
        self._on_pass(0)
        time.sleep(_MEMORY_LOOK_S)


def _exit_broken(error: ModelBroken) -> NoReturn:
    """End the process and acknowledge nothing.

    The jobs of this micro-batch become suspects: if one of them broke the model, it is found and
    failed.
    """
    log.error("model_broken", error=str(error))
    os._exit(os.EX_SOFTWARE)
