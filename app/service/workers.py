"""Checks whether a worker would score a text that is sent now, and says why none would."""

from collections.abc import Callable, Sequence

from app.service.stalls import check_progress
from contract.errors import ModelDrifted, WorkerUnavailable
from contract.service_clock import CLOCK
from contract.store.jobs.job_store import JobStore
from contract.worker_status import PHASES, WorkerStatus


def check_ready(jobs: JobStore, has_work: Callable[[], bool], *, max_silent_s: float) -> int:
    """Check that a text sent now would be scored; return the number of ready workers.

    Args:
        has_work: tells whether jobs or batches have not ended.
        max_silent_s: the longest time without a step of a worker.

    Raises:
        WorkerUnavailable: no worker is ready.
        ModelDrifted: no worker is ready, and one stopped because its scores were wrong.
        Stalled: work waits, and no worker makes progress.
        BrokerUnavailable: Redis does not answer, or takes no writes.
    """
    # Without writes the leases of workers expire, and they seem to be gone.
    jobs.check_writable()
    statuses = jobs.worker_statuses()
    num_ready = sum(status.is_warm for status in statuses)
    if num_ready:
        check_progress(statuses, has_work, max_silent_s=max_silent_s)
        return num_ready
    if jobs.has_model_drifted():
        raise ModelDrifted(
            "A worker stopped because its model gave the canary text a wrong score; "
            "read the figures and the remedy in the worker's log."
        )
    raise no_worker_ready(statuses, CLOCK.now())


def no_worker_ready(statuses: Sequence[WorkerStatus], now: float) -> WorkerUnavailable:
    """The error that tells what the workers do instead; `now` is Unix time in seconds."""
    starting = [status for status in statuses if status.state == "starting"]
    if starting:
        oldest = min(starting, key=lambda status: status.started_at or now)
        return WorkerUnavailable(f"No worker is ready. One is starting ({_startup(oldest, now)}).")
    if statuses:
        return WorkerUnavailable("No worker is ready. The running ones are shutting down.")
    return WorkerUnavailable("No worker is running. Texts wait in the queue until one starts.")


def _startup(status: WorkerStatus, now: float) -> str:
    phase = PHASES.get(status.startup.phase or "", "loading the model")
    if status.started_at is None:
        return phase
    # The clock of Redis may have been set meanwhile.
    elapsed_s = max(now - status.started_at, 0)
    return f"{phase}, {elapsed_s:.0f} s so far"
