"""Times work on the device, by the wall clock or by the device's own clock."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from bench.first_gpu.run import Run

WARM_UP_MS = 15


def wall_s(run: Run, work: Callable[[], Any], *, repeats: int = 3, warm_ups: int = 1) -> float:
    """Return the median wall-clock seconds of `work`, the host's part included."""
    times: list[float] = []
    for number in range(warm_ups + repeats):
        if number > warm_ups and run.left_s() < 2 * times[-1]:
            break
        run.synchronize()
        began = time.perf_counter()
        work()
        run.synchronize()
        times.append(time.perf_counter() - began)
    return median(times[warm_ups:] or times)


def kernel_s(run: Run, work: Callable[[], Any], *, repeat_ms: int = 60) -> float:
    """Return the median seconds of `work` on the device, with the L2 cache cleared before each."""
    if not run.is_on_gpu:
        return wall_s(run, work)
    from triton.testing import do_bench

    return do_bench(work, warmup=WARM_UP_MS, rep=repeat_ms, return_mode="median") / 1e3
