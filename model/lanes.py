"""Independent passes side by side on a CPU, each in a thread and with cores of its own.

PyTorch shares every operation among all cores and waits for the slowest after each: of the hundred
in a layer most are too short for that. Passes that share nothing wait for each other once, at the
end. PyTorch releases the interpreter's lock while it computes.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Argument = TypeVar("Argument")
Result = TypeVar("Result")

# Shorter passes spend their time on starting operations, about 8 ms of each.
MIN_LANE_BYTES = 512


def count_lanes(device: torch.device, pass_bytes: int) -> int:
    """Return how many passes run side by side; together they read `pass_bytes`."""
    if device.type != "cpu":
        return 1
    return max(min(torch.get_num_threads(), pass_bytes // MIN_LANE_BYTES), 1)


def side_by_side(
    function: Callable[[Argument], Result], arguments: Sequence[Argument], num_lanes: int
) -> Iterator[Result]:
    """Yield `function` of each of `arguments`, in order, computed in `num_lanes` threads.

    What it raises is raised here, once the calls that have begun are over.
    """
    if num_lanes == 1 or len(arguments) < 2:
        yield from map(function, arguments)
        return
    num_threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            num_lanes, "lane", torch.set_num_threads, (num_threads // num_lanes,)
        ) as lanes:
            yield from lanes.map(function, arguments)
    finally:
        # It is the number that threads begin with, too.
        torch.set_num_threads(num_threads)
