"""`/readyz` reports a stall only when work waits without progress, or a result stays unstored."""

import pytest

from app.service.stalls import check_progress, silent_s, unstored_s
from contract.errors import Stalled
from contract.worker_status import WorkerStatus

MAX_SILENT_S = 300.0


def worker(state: str = "busy", **fields) -> WorkerStatus:
    return WorkerStatus(name="w", state=state, **fields)


def is_stalled(*statuses: WorkerStatus, has_work: bool = True) -> bool:
    try:
        check_progress(statuses, lambda: has_work, max_silent_s=MAX_SILENT_S)
    except Stalled:
        return True
    return False


def test_work_that_waits_while_no_worker_makes_a_step_is_a_stall():
    assert is_stalled(worker(silent_s=301.0), worker(silent_s=400.0))
    assert not is_stalled(worker(silent_s=301.0), has_work=False)


@pytest.mark.parametrize(
    "other",
    [worker(silent_s=2.0), worker(silent_s=None)],
    ids=["gets on", "of an older release"],
)
def test_one_worker_that_gets_on_is_enough(other):
    assert not is_stalled(worker(silent_s=301.0), other)


def test_worker_that_is_not_ready_says_nothing_of_progress():
    assert is_stalled(worker(silent_s=301.0), worker("starting", silent_s=1.0))
    assert silent_s([worker("starting", silent_s=301.0)]) == 0
    assert silent_s([]) == unstored_s([]) == 0


def test_result_that_redis_refuses_for_long_is_a_stall_whatever_waits():
    refused = worker(unstored_s=30.5, silent_s=1.0, refused_endings={"disk": 9})
    assert is_stalled(refused, has_work=False)
    assert not is_stalled(worker(unstored_s=29.5, silent_s=1.0))
    with pytest.raises(Stalled, match=r"for 30 s \(disk\)"):
        check_progress([refused], lambda: False, max_silent_s=MAX_SILENT_S)


def test_queue_is_not_asked_while_workers_get_on():
    def has_work() -> bool:
        raise AssertionError

    check_progress([worker(silent_s=1.0)], has_work, max_silent_s=MAX_SILENT_S)
