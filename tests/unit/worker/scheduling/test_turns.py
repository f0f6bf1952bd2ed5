"""Clients take turns in micro-batches: each gets its share, and a newcomer does not wait."""

import itertools
from collections import Counter

import pytest

from contract import keys
from model import ScoreRequest, Slice
from worker.scheduling.batching import Credit, choose_micro_batch
from worker.scheduling.filling import Budget, OpenJob
from worker.scheduling.turns import TURNS_PER_MICRO_BATCH

BUDGET = Budget(bytes=80, slices=40, result_bytes=10**6)


def a_job(client: str, *sizes: int, **changes) -> OpenJob:
    slices = [Slice(ScoreRequest(text=b"x" * size)) for size in sizes]
    numbered = f"{client}{next(_NUMBERS)}"
    return OpenJob(numbered, slices, deadline_at=0.0, client=client, **changes)


_NUMBERS = itertools.count()


class Worker:
    """Micro-batches of jobs in hand, without scores."""

    def __init__(self, *jobs: OpenJob) -> None:
        self.jobs = list(jobs)
        self.credit = Credit()
        self.bytes_of: Counter[str] = Counter()
        self.turn = 0

    def micro_batch(self) -> dict[str, int]:
        """Run one; the bytes of each client in it."""
        choice = choose_micro_batch(self.jobs, BUDGET, self.credit)
        self.credit = choice.credit
        self.turn += 1
        taken: Counter[str] = Counter()
        for share in choice.shares:
            share.job.outcomes += [{} for _ in share.slices]
            share.job.last_micro_batch = self.turn
            taken[share.job.client] += sum(each.num_bytes for each in share.slices)
        self.jobs = [job for job in self.jobs if not job.is_done]
        self.bytes_of += taken
        return dict(taken)


def test_clients_with_much_to_do_get_the_same_bytes_whatever_their_sizes():
    worker = Worker(
        a_job("small", *[1] * 2000),
        *(a_job("medium", 13) for _ in range(200)),
        a_job("large", *[80] * 30),
        a_job("huge", *[150] * 20),
    )
    for _ in range(40):
        worker.micro_batch()
    share = sum(worker.bytes_of.values()) / 4
    assert set(worker.bytes_of) == {"small", "medium", "large", "huge"}
    for client, num_bytes in worker.bytes_of.items():
        # A client is ahead or behind by at most its largest text and a turn.
        assert abs(num_bytes - share) <= 150 + BUDGET.bytes / TURNS_PER_MICRO_BATCH, client


@pytest.mark.parametrize("flood", [[80] * 50, [150] * 50, [1] * 500])
def test_newcomer_is_in_the_next_micro_batch_but_one_at_the_latest(flood):
    worker = Worker(*(a_job(f"flood{i}", *flood) for i in range(5)))
    for _ in range(7):
        worker.micro_batch()
        worker.jobs.append(a_job("new", 8, is_express=True))
        assert "new" in worker.micro_batch() or "new" in worker.micro_batch()


def test_newcomers_do_not_starve_a_client_that_has_much_to_do():
    worker = Worker(a_job("much", *[80] * 50))
    for index in range(20):
        worker.jobs += [a_job(f"new{index}.{i}", 10, is_express=True) for i in range(8)]
        worker.micro_batch()
    assert worker.bytes_of["much"] >= 80 * 9


def test_large_text_is_scored_beside_express_jobs_and_small_texts_of_others():
    worker = Worker(a_job("small", *[1] * 2000), a_job("large", 50))
    for number in range(40):
        worker.jobs.append(a_job(f"express{number}", 78, is_express=True))
        worker.micro_batch()
        if worker.bytes_of["large"]:
            break
    assert worker.bytes_of["large"] == 50


def test_long_text_of_a_newcomer_goes_first_with_one_slice_and_then_takes_turns():
    worker = Worker(a_job("a", *[20] * 40), a_job("b", *[20] * 40))
    worker.micro_batch()
    worker.jobs.append(a_job("new", *[20] * 40, is_express=True))
    assert worker.micro_batch()["new"] >= 20
    for _ in range(6):
        worker.micro_batch()
    assert worker.bytes_of["new"] < 80 * 7 / 2


def test_long_text_yields_to_other_texts_of_its_client():
    long, short = a_job("a", *[80] * 10), [a_job("a", 10) for _ in range(4)]
    worker = Worker(long, *short)
    worker.micro_batch()
    worker.micro_batch()
    assert all(job.is_done for job in short)
    assert len(long.outcomes) == 1
    # Nor do ever new short texts keep the long one waiting.
    while not long.is_done:
        worker.jobs.append(a_job("a", 10, last_micro_batch=worker.turn))
        worker.micro_batch()
        assert worker.turn < 30


def test_micro_batch_is_full_as_long_as_something_fits():
    worker = Worker(a_job("a", 50, 50), a_job("b", 50, 50), *(a_job("c", 10) for _ in range(25)))
    assert [sum(worker.micro_batch().values()) for _ in range(5)] == [80] * 5


def test_turns_of_bulk_and_of_interactive_work_are_kept_apart():
    worker = Worker(
        a_job("bulk1", *[10] * 40, priority=keys.BULK),
        a_job("bulk2", *[10] * 40, priority=keys.BULK),
        *(a_job("a", *[10] * 40) for _ in range(2)),
        a_job("b", *[10] * 80),
    )
    for _ in range(12):
        worker.micro_batch()
    assert abs(worker.bytes_of["a"] - worker.bytes_of["b"]) <= 20
    assert abs(worker.bytes_of["bulk1"] - worker.bytes_of["bulk2"]) <= 20
    assert worker.bytes_of["bulk1"] < worker.bytes_of["a"] / 2
