"""Limits the threads of a short pass on a CPU: most of its operations are too short for several."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Multiplications of a product that are worth another thread: about 0.7 ms of one core. On two cores
# of an EPYC (Zen 4), a second thread made a text of 200 bytes 6 % slower, and one of 400 bytes 5 %
# faster for 27 % more CPU time.
MIN_MULTIPLICATIONS = 35_000_000


@contextmanager
def threads_for(num_rows: int, multiplications_per_row: int) -> Iterator[None]:
    """Let operations on `num_rows` rows use only as many threads as make them faster.

    The number of threads changes no bit of float32 scores (docs/numerics.md). One that does
    not help waits for the others at each operation, and takes time from other processes.

    Args:
        multiplications_per_row: of the widest product.
    """
    available = torch.get_num_threads()
    useful = num_rows * multiplications_per_row // MIN_MULTIPLICATIONS
    chosen = max(min(useful, available), 1)
    if chosen == available:
        yield
        return
    torch.set_num_threads(chosen)
    try:
        yield
    finally:
        torch.set_num_threads(available)
