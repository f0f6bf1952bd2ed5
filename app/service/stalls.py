"""Checks whether the service is stalled: work waits and no worker makes progress."""

from collections.abc import Callable, Sequence

from contract.errors import Stalled
from contract.worker_status import WorkerStatus

# A result that Redis refuses for its size is given up before this. One that waits longer waits for
# a Redis that takes no writes at all.
MAX_UNSTORED_S = 30.0


def silent_s(statuses: Sequence[WorkerStatus]) -> float:
    """Time since any ready worker made a step: a pass, a stored result or an answer to a fetch.

    It is 0 if a ready worker does not tell, as one of an older release, and without a ready one.
    """
    ages_s = [status.silent_s for status in statuses if status.is_warm]
    return min((each or 0.0 for each in ages_s), default=0.0)


def unstored_s(statuses: Sequence[WorkerStatus]) -> float:
    """How long the oldest result that Redis refuses has waited."""
    return max((status.unstored_s for status in statuses), default=0.0)


def check_progress(
    statuses: Sequence[WorkerStatus], has_work: Callable[[], bool], *, max_silent_s: float
) -> None:
    """Check that a ready worker makes progress, if jobs or batches wait.

    A long text is no stall: each of its passes is a step.

    Args:
        has_work: tells whether jobs or batches have not ended; it is asked only where that counts.
        max_silent_s: the longest time without a step.

    Raises:
        Stalled
    """
    if unstored_s(statuses) > MAX_UNSTORED_S:
        reasons = sorted({reason for status in statuses for reason in status.refused_endings})
        raise Stalled(
            f"Redis has refused a result for {unstored_s(statuses):.0f} s "
            f"({', '.join(reasons) or 'unknown'}); check the memory and the disk of Redis.",
            unstored_s=unstored_s(statuses),
        )
    if silent_s(statuses) > max_silent_s and has_work():
        raise Stalled(
            f"Jobs are waiting, and no worker has made progress for {silent_s(statuses):.0f} s; "
            "check the logs of the workers and of Redis.",
            silent_s=silent_s(statuses),
        )
