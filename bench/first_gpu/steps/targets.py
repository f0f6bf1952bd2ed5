"""Measures first what decides: the speed of a mode at one size, and the scorer's share of it."""

from collections.abc import Sequence
from statistics import mean

import torch

from bench.first_gpu import project
from bench.first_gpu.modes import PLAIN, Modes, quantization_of
from bench.first_gpu.run import Run
from bench.first_gpu.steps.rivals import packed_passes
from bench.first_gpu.steps.speed import measure_budget, shares
from bench.first_gpu.texts import mixed_lengths, random_text
from bench.first_gpu.timing import wall_s
from model import Scorer, ScoreRequest

WANTED: dict[str, tuple[frozenset[str], int]] = {
    "no outputs": (frozenset(), 0),
    "bytes and top_k 5": (frozenset({"bytes", "top_k"}), 5),
}
# Each once to warm up and twice to be timed: the bare passes, and the scorer with each output.
NUM_TIMES = 3 * (1 + len(WANTED))
# For what is not scoring.
SPARE_S = 3.0


def measure(run: Run, mode: str) -> None:
    """Measure passes of `mode` beside those of bf16, then texts through the scorer."""
    modes = Modes(run)
    bytes_per_s = None
    with torch.inference_mode():
        with run.part(f"target {mode}"):
            modes.use(mode)
            bytes_per_s = _measure_target(run, modes, mode)
        if mode != PLAIN and run.backend != "torch":
            with run.part(f"model {mode}, products by PyTorch", needs_s=SPARE_S):
                project.set_backend_of_products(modes.model, "torch")
                _measure_budget(run, modes, mode, f"{run.backend}, products by PyTorch")
    with run.part(f"offline {mode}", needs_s=SPARE_S):
        # Not in `inference_mode`: the scorer is called as callers call it.
        with torch.inference_mode():
            modes.use(mode)
        scorer = project.scorer_of(modes.model, run.sizes.pass_bytes, quantization_of(mode))
        lengths = mixed_lengths(run.sizes, affordable_texts(run, bytes_per_s))
        with torch.inference_mode():
            passes = packed_passes(run, modes.model, lengths)
            bare_s = wall_s(run, lambda: [each.run() for each in passes], repeats=2)
        run.put(f"offline {mode}: bare passes", bytes_per_s=round(sum(lengths) / bare_s))
        _measure_scorer(run, scorer, mode, lengths, bare_s)


def _measure_target(run: Run, modes: Modes, mode: str) -> float | None:
    bytes_per_s = _measure_budget(run, modes, mode, run.backend)
    if bytes_per_s is None:
        return None
    of_bf16 = run.figures.latest(f"target {PLAIN}", "bytes_per_s")
    run.put(
        f"target {mode}",
        bytes_per_s=round(bytes_per_s),
        times_bf16=round(bytes_per_s / of_bf16, 2) if of_bf16 else None,
        **shares(run, mode, bytes_per_s),
    )
    return bytes_per_s


def _measure_budget(run: Run, modes: Modes, mode: str, way: str) -> float | None:
    return measure_budget(run, modes, mode, way, run.sizes.pass_bytes)


def affordable_texts(run: Run, bytes_per_s: float | None) -> int:
    """Return how many mixed texts can be measured in the time that is left; at least two passes."""
    if bytes_per_s is None:
        return run.sizes.num_texts
    text_bytes = mean(run.sizes.mixed_bytes)
    affordable = (run.left_s() - SPARE_S) * bytes_per_s / NUM_TIMES / text_bytes
    fewest = 2 * run.sizes.pass_bytes / text_bytes
    return min(run.sizes.num_texts, round(max(affordable, fewest)))


def _measure_scorer(
    run: Run, scorer: Scorer, mode: str, lengths: Sequence[int], bare_s: float
) -> None:
    """Measure texts through the scorer; `bare_s` is what the bare model took for them."""
    for name, (outputs, top_k) in WANTED.items():
        requests = [
            ScoreRequest(text=random_text(length, seed), outputs=outputs, top_k=top_k)
            for seed, length in enumerate(lengths)
        ]
        took_s = wall_s(run, lambda: scorer.score(requests), repeats=2)  # noqa: B023
        run.put(
            f"offline {mode}: {name}",
            texts=len(requests),
            bytes_per_s=round(sum(lengths) / took_s),
            share_of_bare=round(bare_s / took_s, 3),
        )
