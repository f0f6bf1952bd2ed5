"""Forms are timed in turn: slow ones are dropped early, and the number of threads is restored."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import torch

from model.ops.timing import MIN_TIMINGS, NUM_TIMINGS, shortest_times
from tests.conftest import HANG_S


def test_hopeless_form_is_not_timed_to_the_end():
    calls = {"fast": 0, "slow": 0}

    def fast() -> None:
        calls["fast"] += 1

    def slow() -> None:
        calls["slow"] += 1
        time.sleep(0.2)

    fast_s, slow_s = shortest_times([fast, slow])

    assert fast_s < slow_s
    # Each runs once before it is timed.
    assert calls == {"fast": 1 + NUM_TIMINGS, "slow": 1 + MIN_TIMINGS}


def test_forms_run_on_one_core_and_the_threads_come_back():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    seen = []
    try:
        shortest_times([lambda: seen.append(torch.get_num_threads())])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


def test_threads_that_measure_at_once_keep_their_own_numbers_of_threads():
    """The number belongs to the thread that sets it, so no lane takes or gives back another's."""
    before = torch.get_num_threads()
    inside = threading.Barrier(2, timeout=HANG_S)
    outside = threading.Barrier(2, timeout=HANG_S)

    def measure(num_threads: int) -> tuple[int, int]:
        torch.set_num_threads(num_threads)
        seen = []

        def form() -> None:
            inside.wait()  # passes only if both measure at once
            seen.append(torch.get_num_threads())

        shortest_times([form])
        outside.wait()  # both have ended
        return max(seen), torch.get_num_threads()

    try:
        with ThreadPoolExecutor(2) as lanes:
            assert list(lanes.map(measure, (2, 3))) == [(1, 2), (1, 3)]
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(before)
