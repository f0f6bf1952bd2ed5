"""Runs independent passes in parallel on a CPU, each in a thread with cores of its own.

PyTorch splits every operation over all cores and waits for the slowest core. Most operations of a
short pass are too short for that. Independent passes wait for each other only once, at the end.
PyTorch releases the interpreter's lock while it computes.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from model.scoring.forward import cut_into_passes

Argument = TypeVar("Argument")
Result = TypeVar("Result")

# Texts of so many bytes or fewer stay in one pass, of twice as many in two, and so on. With 256,
# small micro-batches were no faster on two cores.
MIN_LANE_BYTES = 512
# Texts of similar length share products of attention, so they share a pass. Where each lane has one
# pass, and the largest is larger than this times the mean, the wait for it costs more than that.
# On two cores, dealing out 8 or 10 texts of 20 to 200 bytes saved 5 to 8 %, and 64 cost 4 %.
MAX_UNEVENNESS = 1.04


def count_lanes(device: torch.device, pass_bytes: int) -> int:
    """Return how many passes run in parallel; together they read `pass_bytes`."""
    if device.type != "cpu":
        return 1
    return max(min(torch.get_num_threads(), pass_bytes // MIN_LANE_BYTES), 1)


def cut_for_lanes(lengths: Sequence[int], lane_bytes: int, num_lanes: int) -> list[list[int]]:
    """Return the numbers of the texts of each pass, longest first.

    Where possible, every lane gets as many passes of similar size, so that the lanes end together
    and none is idle. Otherwise the passes are those of `cut_into_passes`.
    """
    passes = list(cut_into_passes(lengths, lane_bytes))
    if num_lanes == 1 or not passes:
        return passes
    in_full_rounds = -(-len(passes) // num_lanes) * num_lanes
    num_passes = min(in_full_rounds, -(-sum(lengths) // MIN_LANE_BYTES))
    even = _cut_evenly(lengths, num_passes)
    mean_bytes = sum(lengths) / num_passes
    if num_passes == num_lanes and _largest(lengths, even) > MAX_UNEVENNESS * mean_bytes:
        even = min(even, _deal_out(lengths, num_passes), key=partial(_largest, lengths))
    return even if _largest(lengths, even) <= lane_bytes else passes


def _cut_evenly(lengths: Sequence[int], num_passes: int) -> list[list[int]]:
    """Lay the texts end to end; each belongs to the pass that its middle falls into."""
    descending = np.argsort(-np.array(lengths, dtype=np.int64), kind="stable")
    ordered = np.array(lengths, dtype=np.int64)[descending]
    ends = ordered.cumsum()
    # Twice the middle is a whole number.
    pass_of = (2 * ends - ordered) * num_passes // (2 * ends[-1])
    cuts = np.flatnonzero(np.diff(pass_of)) + 1
    return [numbers.tolist() for numbers in np.split(descending, cuts)]


def _deal_out(lengths: Sequence[int], num_passes: int) -> list[list[int]]:
    """Give each text, the longest first, to the pass that has the fewest bytes so far.

    The rule of the longest processing time (Graham, 1969): at most a third above the best there is.
    """
    passes: list[list[int]] = [[] for _ in range(num_passes)]
    loads = [(0, each) for each in range(num_passes)]
    for number in np.argsort(-np.array(lengths, dtype=np.int64), kind="stable").tolist():
        num_bytes, lightest = heapq.heappop(loads)
        passes[lightest].append(number)
        heapq.heappush(loads, (num_bytes + lengths[number], lightest))
    return [each for each in passes if each]


def _largest(lengths: Sequence[int], passes: Sequence[Sequence[int]]) -> int:
    """The bytes of the largest pass."""
    return max(sum(lengths[number] for number in each) for each in passes)


def side_by_side(
    function: Callable[[Argument], Result], arguments: Sequence[Argument], num_lanes: int
) -> Iterator[Result]:
    """Call `function` with each of `arguments` in `num_lanes` threads; yield the results in order.

    The calls share the cores equally; a single call may use all of them.

    An error of a call is raised here, after the calls that have begun have ended.
    """
    num_lanes = min(num_lanes, len(arguments))
    if num_lanes <= 1:
        yield from map(function, arguments)
        return
    num_threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            num_lanes, "lane", torch.set_num_threads, (num_threads // num_lanes,)
        ) as lanes:
            yield from lanes.map(function, arguments)
    finally:
        # New threads begin with this number, too.
        torch.set_num_threads(num_threads)
