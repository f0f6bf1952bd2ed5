"""Measures where the time of a pass goes: by kernel, by operation, and by tile of the product."""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bench.first_gpu.modes import PLAIN, Modes
from bench.first_gpu.passes import Pass
from bench.first_gpu.run import Run
from bench.first_gpu.steps.tiles import measure_tiles
from bench.first_gpu.texts import texts_of
from bench.first_gpu.timing import kernel_s, wall_s
from bench.gpu import Shape, cases

MAX_KERNELS = 14
PROFILE_ROWS, PROFILE_COLUMN = 60, 90


def measure(run: Run) -> None:
    """Profile a pass of bf16 and of int8, then measure tiles and operations alone."""
    with torch.inference_mode():
        modes = Modes(run)
        for mode in (PLAIN, "int8"):
            with run.part(f"profile {mode}", needs_s=4):
                modes.use(mode)
                _profile(run, modes, mode)
        measure_tiles(run)
        with run.part("operations", needs_s=3):
            _measure_operations(run)


def _profile(run: Run, modes: Modes, mode: str) -> None:
    """Put time by kernel of one pass, its launches, and how long the GPU waits."""
    one = Pass(modes.model, texts_of(run.sizes.pass_bytes, run.sizes.text_bytes))
    pass_s = wall_s(run, one.run, repeats=2, warm_ups=2)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * run.is_on_gpu
    with profile(activities=activities) as recorded:
        one.run()
        run.synchronize()
    events = [event for event in recorded.events() if event.device_type == DeviceType.CUDA]
    spans = sorted((event.time_range.start, event.time_range.end) for event in events)
    busy_us = union(spans)
    run.put(
        f"profile {mode}",
        pass_ms=round(pass_s * 1e3, 2),
        device_busy_ms=round(busy_us / 1e3, 2),
        device_idle_share_of_pass=round(1 - busy_us / 1e6 / pass_s, 3) if spans else None,
        launches=len(spans),
    )
    _put_kernels(run, mode, events, busy_us)
    _write_profile(run, mode, recorded)


def _put_kernels(run: Run, mode: str, events: Iterable[Any], busy_us: float) -> None:
    launches: dict[str, int] = defaultdict(int)
    total_us: dict[str, float] = defaultdict(float)
    for event in events:
        launches[event.name] += 1
        total_us[event.name] += event.time_range.end - event.time_range.start
    for name in sorted(total_us, key=lambda name: -total_us[name])[:MAX_KERNELS]:
        run.put(
            f"profile {mode}: kernel",
            name=name[:PROFILE_COLUMN],
            launches=launches[name],
            ms=round(total_us[name] / 1e3, 3),
            share=round(total_us[name] / busy_us, 3),
        )


def _write_profile(run: Run, mode: str, recorded: profile) -> None:
    rows = recorded.key_averages().table(
        sort_by="self_cuda_time_total" if run.is_on_gpu else "self_cpu_time_total",
        row_limit=PROFILE_ROWS,
        max_name_column_width=PROFILE_COLUMN,
    )
    with (run.folder / "profile.txt").open("a") as file:
        file.write(f"{mode}\n{rows}\n")


def union(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of sorted spans."""
    total, end = 0.0, -math.inf
    for start, stop in spans:
        total += max(stop - max(start, end), 0)
        end = max(end, stop)
    return total


def _measure_operations(run: Run) -> None:
    """Measure each operation by its kernel and by PyTorch; compare with the speed of a copy."""
    sizes, half = run.sizes, run.sizes.rows // 2
    shape = Shape(
        lengths=(*texts_of(half, sizes.text_bytes), half),
        hidden=sizes.hidden,
        intermediate=sizes.intermediate,
        heads=sizes.heads,
        window=sizes.window,
        dtype=run.dtype,
    )
    # What each moves at least, in numbers per row: see `bench.roofline.FUSED_BYTES`.
    moved = {"norm": 4 * sizes.hidden, "rotation": 2 * sizes.hidden, "gate": 3 * sizes.intermediate}
    copied = run.figures.latest("copy", "gb_per_s")
    for name, case in cases(shape, torch.device(run.device)):
        with run.part(f"operation {name}", needs_s=2):
            figures: dict[str, float] = {}
            for backend in dict.fromkeys((run.backend, "torch")):
                took_s = kernel_s(run, case(backend), repeat_ms=30)
                figures[f"{backend}_ms"] = round(took_s * 1e3, 4)
                if name in moved and copied:
                    gb = moved[name] * sizes.rows * run.dtype.itemsize / 1e9
                    figures[f"{backend}_share_of_copy"] = round(gb / took_s / copied, 3)
            run.put(f"operation {name}", rows=sizes.rows, **figures)
