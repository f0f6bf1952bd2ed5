"""What a client reads while no worker is ready."""

import pytest

from app.service.workers import check_ready, no_worker_ready
from contract.errors import ModelDrifted, WorkerUnavailable
from contract.worker_status import StartupStatus, WorkerStatus

NOW = 1_769_860_800.0


def worker(state: str, name: str = "w", **fields) -> WorkerStatus:
    return WorkerStatus(name=name, state=state, **fields)


class Jobs:
    """A job store with these workers."""

    def __init__(self, *statuses: WorkerStatus, has_drifted: bool = False) -> None:
        self._statuses = list(statuses)
        self._has_drifted = has_drifted

    def check_writable(self):
        """Redis takes writes."""

    def worker_statuses(self):
        return self._statuses

    def has_model_drifted(self):
        return self._has_drifted


def starting(phase: str | None, ago_s: float | None) -> WorkerStatus:
    started_at = None if ago_s is None else NOW - ago_s
    return worker("starting", startup=StartupStatus(phase), started_at=started_at)


@pytest.mark.parametrize(
    ("statuses", "message"),
    [
        ([], "No worker is running. Texts wait in the queue until one starts."),
        (
            [starting("load", 12.2)],
            "No worker is ready. One is starting (loading the model, 12 s so far).",
        ),
        (
            [worker("draining"), starting("download", 3.1), starting("warm_up", 40.2)],
            "No worker is ready. One is starting (warming up the model, 40 s so far).",
        ),
        # Also of a local folder, where nothing is downloaded.
        (
            [starting("download", 3.1)],
            "No worker is ready. One is starting (finding or downloading the model, 3 s so far).",
        ),
        # Of a later release, with a clock ahead, and of a release that does not tell its phase.
        (
            [starting("polish", -5)],
            "No worker is ready. One is starting (loading the model, 0 s so far).",
        ),
        ([starting(None, None)], "No worker is ready. One is starting (loading the model)."),
        ([worker("draining")], "No worker is ready. The running ones are shutting down."),
    ],
)
def test_message_says_what_the_workers_do(statuses, message):
    assert no_worker_ready(statuses, NOW).message == message


def check(jobs: Jobs) -> None:
    check_ready(jobs, lambda: True, max_silent_s=300)


def test_service_is_ready_with_one_warm_worker():
    check(Jobs(worker("starting", "v"), worker("busy"), has_drifted=True))


def test_drifted_model_is_reported_before_a_start_that_may_fail_again():
    with pytest.raises(ModelDrifted):
        check(Jobs(worker("starting"), has_drifted=True))
    with pytest.raises(WorkerUnavailable):
        check(Jobs(worker("starting")))
