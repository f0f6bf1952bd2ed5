"""Measures the 6.5B model by mode and pass size; compares texts scored alone and together."""

import time

import numpy as np
import torch
from numpy.typing import NDArray

from bench.first_gpu.modes import CEILING_OF, INVARIANT, PLAIN, Modes
from bench.first_gpu.passes import FIRST_ID, Pass
from bench.first_gpu.run import Run
from bench.first_gpu.sizes import data_sheet
from bench.first_gpu.texts import texts_of
from bench.first_gpu.timing import wall_s

NUM_COMPARED = 5
MODES_BY_PYTORCH = (PLAIN, "int8")
# A pass takes longer only with the longest budgets, which `wall_s` repeats less often.
SHORTEST_BUDGET_S = 3


def measure(run: Run) -> None:
    """Measure each mode with the kernels, bf16 and int8 with PyTorch's operations too.

    A kernel that hangs costs the modes after it: those with an int8 or fp8 product come last.
    """
    with torch.inference_mode():
        modes = Modes(run)
        alone = {}
        for mode in (PLAIN, INVARIANT, "nf4", "int8", "fp8"):
            with run.part(f"model {mode}", needs_s=4):
                _measure_mode(run, modes, mode)
            with run.part(f"company {mode}", needs_s=1):
                alone[mode] = _compare_company(run, modes, mode)
            if mode in MODES_BY_PYTORCH:
                with run.part(f"model {mode} torch", needs_s=2):
                    modes.use(mode, "torch")
                    for budget in run.sizes.torch_budgets:
                        measure_budget(run, modes, mode, "torch", budget)
        with run.part("differences", needs_s=2):
            _compare_modes(run, modes, alone)


def _measure_mode(run: Run, modes: Modes, mode: str) -> None:
    began = time.perf_counter()
    modes.use(mode)
    Pass(modes.model, texts_of(run.sizes.budgets[0], run.sizes.text_bytes)).run()
    run.put(f"model {mode}: first pass", seconds=round(time.perf_counter() - began, 2))
    few = (run.sizes.budgets[0], run.sizes.pass_bytes)
    for budget in few if mode == INVARIANT else run.sizes.budgets:
        if run.left_s() < SHORTEST_BUDGET_S:
            run.put(f"model {mode}, {budget} bytes and more: left out")
            break
        measure_budget(run, modes, mode, run.backend, budget)


def measure_budget(run: Run, modes: Modes, mode: str, way: str, budget: int) -> float | None:
    """Put the speed and memory of passes of `budget` bytes; return the speed in bytes per second.

    The model must be in its mode, and compute in the `way` that the figures name. None where
    memory runs out.
    """
    one = Pass(modes.model, texts_of(budget, run.sizes.text_bytes))
    before = 0
    if run.is_on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    try:
        took_s = wall_s(run, one.run)
    except torch.OutOfMemoryError:
        run.put(f"model {mode} {way}", budget=budget, error="out of memory")
        run.empty_cache()
        return None
    peak = torch.cuda.max_memory_allocated() - before if run.is_on_gpu else 0
    run.put(
        f"model {mode} {way}",
        budget=budget,
        bytes_per_s=round(budget / took_s),
        pass_ms=round(took_s * 1e3, 2),
        **shares(run, mode, budget / took_s),
        pass_memory_mib=round(peak / 2**20),
        weights_and_pass_gib=round((modes.weight_bytes(mode) + peak) / 2**30, 2),
    )
    return budget / took_s


def shares(run: Run, mode: str, bytes_per_s: float) -> dict[str, float | None]:
    """Return the share of the measured ceiling, and of the data sheet's dense peak."""
    kind = CEILING_OF[mode]
    tera = bytes_per_s * 2 * run.sizes.linear_weights / 1e12
    measured = run.figures.latest(f"products in {kind}", "ceiling_tera_per_s")
    sheet = data_sheet(str(run.figures.latest("machine", "gpu")))
    peak = None
    if sheet is not None:
        peak = (sheet.peak_bf16 if kind == "bf16" else sheet.peak_int8) / 1e12
    return {
        "tera_per_s": round(tera, 1),
        "share_of_measured": round(tera / measured, 3) if measured else None,
        "share_of_sheet": round(tera / peak, 3) if peak else None,
    }


def _compare_company(run: Run, modes: Modes, mode: str) -> NDArray[np.float32]:
    """Compare texts alone with the same in a full pass; return the scores of a small pass."""
    modes.use(mode)
    lengths = texts_of(run.sizes.pass_bytes, run.sizes.text_bytes)
    full = Pass(modes.model, lengths)
    together = full.run().log_prob
    num_whole = sum(length == lengths[0] for length in lengths)
    num_same, unlike = 0, 0.0
    for place in range(NUM_COMPARED):
        start = place * (num_whole - 1) // (NUM_COMPARED - 1) * lengths[0]
        ours = _score_alone(modes, full, start, lengths[0])
        theirs = together[start : start + len(ours)]
        num_same += bool((ours == theirs).all())
        unlike = max(unlike, float(abs(ours - theirs).max()))
    run.put(
        f"company {mode}",
        texts=NUM_COMPARED,
        texts_with_same_bits=num_same,
        largest_difference=unlike,
    )
    return _small_pass(run, modes).run().log_prob


def _score_alone(modes: Modes, full: Pass, start: int, num_bytes: int) -> NDArray[np.float32]:
    """Score one text of a full pass alone; its last byte has another target there."""
    one = Pass(modes.model, [num_bytes])
    one.ids[:num_bytes] = full.ids[start : start + num_bytes]
    one.ids[num_bytes:] = FIRST_ID
    one.targets[: num_bytes - 1] = full.targets[start : start + num_bytes - 1]
    return one.run().log_prob[: num_bytes - 1]


def _small_pass(run: Run, modes: Modes) -> Pass:
    budget = run.sizes.torch_budgets[0]
    return Pass(modes.model, texts_of(budget, run.sizes.text_bytes))


def _compare_modes(run: Run, modes: Modes, alone: dict[str, NDArray[np.float32]]) -> None:
    modes.use(PLAIN, "torch")
    reference = _small_pass(run, modes).run().log_prob
    for mode, ours in alone.items():
        difference = abs(ours - reference)
        run.put(
            f"log-probabilities of {mode} beside bf16 by PyTorch, random weights",
            mean_difference=float(difference.mean()),
            worst_difference=float(difference.max()),
        )
