"""Measures the latency of one text, the speed of many through the `Scorer`, and the warm-up."""

import time
from statistics import median

import torch

from bench.first_gpu import project
from bench.first_gpu.modes import PLAIN, Modes
from bench.first_gpu.run import Run
from bench.first_gpu.steps.rivals import packed_passes
from bench.first_gpu.texts import mixed_lengths, random_text
from bench.first_gpu.timing import wall_s
from model import Scorer, ScoreRequest

NUM_WARM_UPS, NUM_TIMED = 3, 15
WANTED: dict[str, tuple[frozenset[str], int]] = {
    "no outputs": (frozenset(), 0),
    "bytes and top_k 5": (frozenset({"bytes", "top_k"}), 5),
}


def measure(run: Run) -> None:
    """Measure bf16 and int8 through the scorer, and the share of the bare model that it reaches."""
    modes = Modes(run)
    for mode in (PLAIN, "int8"):
        with run.part(f"latency {mode}", needs_s=5):
            with torch.inference_mode():
                modes.use(mode)
            quantization = "none" if mode == PLAIN else mode
            scorer = project.scorer_of(modes.model, run.sizes.pass_bytes, quantization)
            _measure_lone_text(run, scorer, mode)
            _measure_scorer(run, scorer, modes, mode)
    with run.part("warm-up", needs_s=8):
        scorer = project.scorer_of(modes.model, 4 * run.sizes.pass_bytes, "int8")
        began = time.perf_counter()
        scorer.warm_up()
        seconds = round(time.perf_counter() - began, 2)
        run.put("warm-up", seconds=seconds, pass_bytes=scorer.pass_bytes)


def _measure_lone_text(run: Run, scorer: Scorer, mode: str) -> None:
    request = ScoreRequest(text=random_text(run.sizes.text_bytes, 0))
    times = [
        wall_s(run, lambda: scorer.score([request]), repeats=1, warm_ups=0)
        for _ in range(NUM_WARM_UPS + NUM_TIMED)
    ][NUM_WARM_UPS:]
    run.put(
        f"latency {mode}",
        text_bytes=run.sizes.text_bytes,
        median_ms=round(median(times) * 1e3, 2),
        best_ms=round(min(times) * 1e3, 2),
    )


def _measure_scorer(run: Run, scorer: Scorer, modes: Modes, mode: str) -> None:
    lengths = mixed_lengths(run.sizes, run.sizes.num_texts)
    with torch.inference_mode():
        passes = packed_passes(run, modes.model, lengths)
        bare_s = wall_s(run, lambda: [each.run() for each in passes], repeats=2)
    run.put(f"offline {mode}: bare passes", bytes_per_s=round(sum(lengths) / bare_s))
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
