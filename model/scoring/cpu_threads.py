"""Independent passes side by side on a CPU, each in a thread and with cores of its own.

PyTorch shares every operation among all cores and waits for the slowest after each: of the hundred
in a layer most are too short for that. Passes that share nothing wait for each other once, at the
end. PyTorch releases the interpreter's lock while it computes.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from model.scoring.forward import cut_into_passes

Argument = TypeVar("Argument")
Result = TypeVar("Result")

# Shorter passes spend their time on starting operations, about 8 ms of each.
MIN_LANE_BYTES = 512


def count_lanes(device: torch.device, pass_bytes: int) -> int:
    """Return how many passes run side by side; together they read `pass_bytes`."""
    if device.type != "cpu":
        return 1
    return max(min(torch.get_num_threads(), pass_bytes // MIN_LANE_BYTES), 1)


def cut_for_lanes(lengths: Sequence[int], lane_bytes: int, num_lanes: int) -> list[list[int]]:
    """Return the numbers of the texts of each pass, longest first.

    As `cut_into_passes` has it, but where it can be, as many for each lane and all of like size, so
    that the lanes end together: while one reads what was left over, the others idle.
    """
    passes = list(cut_into_passes(lengths, lane_bytes))
    if num_lanes == 1 or not passes:
        return passes
    in_full_rounds = -(-len(passes) // num_lanes) * num_lanes
    even = _cut_evenly(lengths, min(in_full_rounds, -(-sum(lengths) // MIN_LANE_BYTES)))
    is_within = all(sum(lengths[number] for number in each) <= lane_bytes for each in even)
    return even if is_within else passes


def _cut_evenly(lengths: Sequence[int], num_passes: int) -> list[list[int]]:
    """Lay the texts end to end and put each into the pass that its middle falls into."""
    descending = np.argsort(-np.array(lengths, dtype=np.int64), kind="stable")
    ordered = np.array(lengths, dtype=np.int64)[descending]
    ends = ordered.cumsum()
    # Twice the middle, so that it is whole.
    pass_of = (2 * ends - ordered) * num_passes // (2 * ends[-1])
    cuts = np.flatnonzero(np.diff(pass_of)) + 1
    return [numbers.tolist() for numbers in np.split(descending, cuts)]


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
