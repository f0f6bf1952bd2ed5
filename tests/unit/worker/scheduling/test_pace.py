"""A micro-batch takes as many bytes as the model reads in time, whatever its speed."""

import pytest

from worker.scheduling.filling import Budget
from worker.scheduling.pace import MIN_BYTES, Pace

BUDGET = Budget(bytes=16_384, slices=256, result_bytes=10**6)


class Model:
    """Reads micro-batches at one speed, each after a fixed time."""

    def __init__(self, bytes_per_s: float, fixed_s: float = 0.0) -> None:
        self.pace = Pace(max_s=1.0)
        self.bytes_per_s, self.fixed_s = bytes_per_s, fixed_s

    def read(self, num_bytes: int | None = None, times: int = 1) -> float:
        """Return the seconds of the last micro-batch; without `num_bytes` each is full."""
        for _ in range(times):
            budget = self.pace.limit(BUDGET)
            wanted = budget.bytes if num_bytes is None else num_bytes
            elapsed_s = self.fixed_s + wanted / self.bytes_per_s
            self.pace.note(wanted, elapsed_s, budget)
        return elapsed_s

    @property
    def max_bytes(self) -> int:
        return self.pace.limit(BUDGET).bytes


@pytest.mark.parametrize("fixed_s", [0.0, 0.2])
@pytest.mark.parametrize("bytes_per_s", [2_000, 7_000, 15_000])
def test_full_micro_batches_come_to_take_the_allowed_time(bytes_per_s, fixed_s):
    model = Model(bytes_per_s, fixed_s)
    model.read(times=50)
    assert model.read() == pytest.approx(1.0, abs=0.01)


def test_fast_model_reads_the_whole_budget():
    model = Model(bytes_per_s=100_000)
    model.read(times=5)
    assert model.pace.limit(BUDGET) is BUDGET


def test_limit_rises_again_when_the_model_is_fast_again():
    model = Model(bytes_per_s=2_000)
    model.read(times=10)
    assert model.max_bytes == 2_000
    model.bytes_per_s = 100_000
    model.read(times=5)
    assert model.max_bytes == BUDGET.bytes


def test_one_slow_moment_halves_the_limit_and_no_more():
    model = Model(bytes_per_s=100_000, fixed_s=30)
    model.read(num_bytes=20)
    assert model.max_bytes == BUDGET.bytes // 2


def test_small_and_fast_micro_batches_say_nothing():
    model = Model(bytes_per_s=7_000, fixed_s=0.1)
    model.read(times=20)
    before = model.max_bytes
    model.read(num_bytes=20, times=100)
    assert model.max_bytes == before


def test_limit_has_a_floor_below_which_short_texts_would_no_longer_share_a_pass():
    model = Model(bytes_per_s=10)
    model.read(times=50)
    assert model.max_bytes == MIN_BYTES
    small = Budget(bytes=100, slices=256, result_bytes=10**6)
    assert model.pace.limit(small) == small
