"""Long jobs in hand: their results have a limit, and they keep nobody else from starting."""

import pytest

from contract import keys
from model import ScoreRequest, Slice
from worker.scheduling.batching import Credit, choose_micro_batch
from worker.scheduling.filling import Budget, OpenJob
from worker.scheduling.long_jobs import MAX_GOING_ON, MAX_HELD
from worker.scheduling.room import MAX_LONG_JOBS, MAX_LONG_JOBS_BY_TURNS, room_for_fetch

BUDGET = Budget(bytes=80, slices=40, result_bytes=1000)


def a_job(name: str, num_slices: int, *, result_bytes: int = 0, **changes) -> OpenJob:
    """A job of one client, whose slices take a quarter of a micro-batch each."""
    slices = [Slice(ScoreRequest(text=b"x" * (BUDGET.bytes // 4)))] * num_slices
    results = [result_bytes // max(num_slices, 1)] * num_slices
    changes = {"client": name, "is_express": True} | changes
    return OpenJob(name, slices, deadline_at=0.0, result_bytes=results, **changes)


class Worker:
    """Micro-batches of jobs in hand, without scores."""

    def __init__(self, *jobs: OpenJob) -> None:
        self.jobs, self.credit = list(jobs), Credit()

    def micro_batch(self) -> set[str]:
        """Run one; the jobs in it."""
        choice = choose_micro_batch(self.jobs, BUDGET, self.credit)
        self.credit = choice.credit
        for share in choice.shares:
            share.job.outcomes += [{} for _ in share.slices]
        self.jobs = [job for job in self.jobs if not job.is_done]
        return {share.job.task_id for share in choice.shares}

    @property
    def held_bytes(self) -> int:
        return sum(job.outcome_bytes for job in self.jobs)


def test_many_long_jobs_in_hand_leave_room_for_those_of_other_clients():
    jobs = [a_job(str(number), 500) for number in range(MAX_LONG_JOBS - 1)]
    for job in jobs:
        job.outcomes.append({})
    room = room_for_fetch(jobs, BUDGET)[keys.INTERACTIVE]
    assert room.express_long_jobs == 1
    # Nor do express jobs take the places of those that are fetched by turns.
    assert room.long_jobs == MAX_LONG_JOBS_BY_TURNS
    assert len(room.busy_clients) == MAX_LONG_JOBS - 1


def test_next_long_express_job_is_fetched_when_the_one_before_has_begun():
    job = a_job("a", 9)
    assert room_for_fetch([job], BUDGET)[keys.INTERACTIVE].express_long_jobs == 0
    job.outcomes.append({})
    assert room_for_fetch([job], BUDGET)[keys.INTERACTIVE].express_long_jobs == 1


def test_no_long_job_is_fetched_while_results_of_long_ones_take_much_memory():
    jobs = [a_job(str(i), 500, result_bytes=BUDGET.result_bytes) for i in range(MAX_HELD)]
    for job in jobs:
        job.outcomes += [{}] * 499
    assert room_for_fetch(jobs, BUDGET)[keys.INTERACTIVE].express_long_jobs > 0
    jobs.append(a_job("last", 500, result_bytes=BUDGET.result_bytes))
    jobs[-1].outcomes += [{}] * 5
    rooms = room_for_fetch(jobs, BUDGET)
    room = rooms[keys.INTERACTIVE]
    assert (room.express_long_jobs, room.long_jobs) == (0, 0)
    assert (room.express_bytes, room.bytes) == (BUDGET.bytes, BUDGET.bytes)
    assert rooms[keys.BULK].express_long_jobs > 0


def test_long_jobs_with_large_results_start_at_once_and_end_one_after_the_other():
    worker = Worker(*(a_job(f"early{i}", 100, result_bytes=BUDGET.result_bytes) for i in range(10)))
    first_slices_bytes = 10 * 4 * BUDGET.result_bytes // 100
    num_micro_batches = 0
    while worker.jobs:
        if num_micro_batches % 40 == 10:
            name = f"new{num_micro_batches}"
            worker.jobs.append(a_job(name, 8, result_bytes=BUDGET.result_bytes // 10))
            assert name in worker.micro_batch() | worker.micro_batch()
        worker.micro_batch()
        num_micro_batches += 1
        limit = (MAX_GOING_ON + 1) * BUDGET.result_bytes + 2 * first_slices_bytes
        assert worker.held_bytes <= limit
        assert num_micro_batches < 1000


@pytest.mark.parametrize("result_bytes", [0, BUDGET.result_bytes])
def test_long_bulk_jobs_hold_back_no_interactive_ones(result_bytes):
    bulk = [a_job(f"b{i}", 90, result_bytes=1000, priority=keys.BULK) for i in range(9)]
    worker = Worker(*bulk)
    for _ in range(9):
        worker.micro_batch()
    worker.jobs.append(a_job("i", 90, result_bytes=result_bytes))
    for _ in range(60):
        worker.micro_batch()
    assert "i" not in {job.task_id for job in worker.jobs}
