"""The wait for further texts before a micro-batch, with a clock that the test moves."""

from dataclasses import replace

import pytest

from worker.scheduling.batching_delay import (
    ANY_TIME,
    ENOUGH_BYTES,
    MAX_DELAY_S,
    MAX_SHARE,
    MAX_SKIPPED,
    SILENCE_S,
    BatchingDelay,
)
from worker.scheduling.filling import Budget

BUDGET = Budget(bytes=16384, slices=256, result_bytes=1)
ENDED_AT = 1000.0
BEFORE, AFTER = ENDED_AT - 0.01, ENDED_AT + 0.01


class Waiting:
    """A worker's wait, and its monotonic clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.delay = BatchingDelay(clock=lambda: self.now)

    def begin(self, num_ended: int, elapsed_s: float = 0.08) -> None:
        self.delay.begin(num_ended, ENDED_AT, elapsed_s)

    def fetch(self, *submitted_at: float, num_bytes: int = 10) -> float:
        """Fetch jobs; return how long to wait then."""
        for each in submitted_at:
            self.delay.add(num_bytes, each)
        return self.left_s()

    def left_s(self, budget: Budget = BUDGET) -> float:
        return self.delay.left_s(budget)

    def in_vain(self) -> bool:
        """End a micro-batch after which nobody comes back; return whether there was a wait."""
        self.begin(4)
        has_waited = self.fetch(BEFORE) > 0
        self.now += 1
        assert self.left_s() == 0
        return has_waited


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def test_first_micro_batch_begins_at_once(waiting):
    assert waiting.fetch(AFTER) == 0


def test_wait_ends_with_as_many_jobs_as_have_ended(waiting):
    waiting.begin(3)
    assert waiting.fetch(BEFORE, BEFORE) > 0
    assert waiting.fetch(AFTER, AFTER) > 0
    assert waiting.fetch(AFTER) == 0
    assert waiting.delay.num_expected == 0


def test_wait_for_the_others_begins_with_the_first_that_comes_back(waiting):
    waiting.begin(2)
    assert waiting.fetch(AFTER) > 0
    assert waiting.fetch(AFTER) == 0


@pytest.mark.parametrize(("elapsed_s", "expected_s"), [(0.04, 0.04 * MAX_SHARE), (10, MAX_DELAY_S)])
def test_wait_is_a_share_of_the_last_micro_batch_and_bounded(waiting, elapsed_s, expected_s):
    waiting.begin(2, elapsed_s)
    assert waiting.fetch(BEFORE) == pytest.approx(expected_s)
    waiting.now += expected_s
    assert waiting.left_s() == 0


def test_wait_ends_soon_after_the_last_job_that_came(waiting):
    waiting.begin(9)
    assert waiting.fetch(AFTER) == pytest.approx(SILENCE_S)
    waiting.now += SILENCE_S / 2
    assert waiting.fetch(AFTER) == pytest.approx(SILENCE_S)
    waiting.now += SILENCE_S
    assert waiting.left_s() == 0


def test_single_client_never_waits(waiting):
    waiting.begin(1)
    assert waiting.fetch(AFTER) == 0


def test_text_that_comes_alone_begins_at_once_if_it_is_the_only_one_expected(waiting):
    assert waiting.delay.opens_after == ANY_TIME
    waiting.begin(1)
    assert waiting.delay.opens_after == ENDED_AT
    waiting.begin(2)
    assert waiting.delay.opens_after is None


def test_two_clients_in_turn_come_together(waiting):
    waiting.begin(1)
    assert waiting.fetch(BEFORE) > 0
    assert waiting.fetch(AFTER) == 0


def test_job_that_comes_late_begins_at_once_and_is_no_wait_in_vain(waiting):
    waiting.begin(4)
    waiting.now += MAX_DELAY_S
    assert waiting.fetch(AFTER) == 0
    assert waiting.in_vain()


def test_enough_bytes_in_hand_begin_at_once(waiting):
    waiting.begin(4)
    assert waiting.fetch(BEFORE, num_bytes=ENOUGH_BYTES - 1) > 0
    waiting.begin(4)
    assert waiting.fetch(BEFORE, num_bytes=ENOUGH_BYTES) == 0


@pytest.mark.parametrize("full", [replace(BUDGET, slices=3), replace(BUDGET, bytes=30)])
def test_full_budget_begins_at_once_and_is_no_wait_in_vain(waiting, full):
    waiting.begin(4)
    assert waiting.fetch(BEFORE, BEFORE) > 0
    assert waiting.left_s(full) > 0
    waiting.delay.add(10, BEFORE)
    assert waiting.left_s(full) == 0
    assert waiting.in_vain()


def test_waits_in_vain_become_rare_until_one_is_worth_it(waiting):
    gaps, gap = [], 0
    while len(gaps) < 7:
        if waiting.in_vain():
            gaps.append(gap)
            gap = 0
        else:
            gap += 1
    assert gaps == [0, 1, 3, 7, 15, MAX_SKIPPED, MAX_SKIPPED]
    for _ in range(MAX_SKIPPED):
        assert not waiting.in_vain()
    waiting.begin(4)
    assert waiting.fetch(BEFORE) > 0
    assert waiting.fetch(AFTER, AFTER) > 0
    waiting.now += SILENCE_S
    assert waiting.left_s() == 0
    # Half of the clients came back.
    assert waiting.in_vain()


def test_micro_batch_whose_clients_have_nothing_skips_no_wait(waiting):
    assert waiting.in_vain()
    waiting.begin(0)
    assert waiting.fetch(BEFORE) == 0
    assert not waiting.in_vain()
    assert waiting.in_vain()
