"""Times forms of an operation against each other, to choose between them on this machine."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

NUM_TIMINGS = 7  # the fastest counts: other processes only slow it down
# A form this many times as slow as the fastest is timed no further after `MIN_TIMINGS`.
HOPELESS = 4
MIN_TIMINGS = 2


def shortest_times(forms: Sequence[Callable[[], Any]]) -> list[float]:
    """Return the shortest time of each form in seconds; the forms take turns on one core.

    One core, since short passes run in parallel, and since one busy core would slow them all.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        shortest = [float("inf")] * len(forms)
        for form in forms:
            form()
        for number in range(NUM_TIMINGS):
            for place, form in enumerate(forms):
                is_hopeless = shortest[place] > HOPELESS * min(shortest)
                if number < MIN_TIMINGS or not is_hopeless:
                    shortest[place] = min(shortest[place], _seconds(form))
        return shortest
    finally:
        torch.set_num_threads(num_threads)


def _seconds(form: Callable[[], Any]) -> float:
    began = time.perf_counter()
    form()
    return time.perf_counter() - began
