"""Forms are timed in turn: slow ones are dropped early, and the number of threads is restored."""

import time

import torch

from model.ops.timing import MIN_TIMINGS, NUM_TIMINGS, shortest_times


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
