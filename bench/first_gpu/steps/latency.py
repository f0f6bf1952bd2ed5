"""Measures the latency of one text through the `Scorer`, and the warm-up."""

import time
from statistics import median

import torch

from bench.first_gpu import project
from bench.first_gpu.modes import PLAIN, Modes, quantization_of
from bench.first_gpu.run import Run
from bench.first_gpu.texts import random_text
from bench.first_gpu.timing import wall_s
from model import Scorer, ScoreRequest

NUM_WARM_UPS, NUM_TIMED = 3, 15


def measure(run: Run) -> None:
    """Measure bf16 and int8."""
    modes = Modes(run)
    for mode in (PLAIN, "int8"):
        with run.part(f"latency {mode}", needs_s=5):
            with torch.inference_mode():
                modes.use(mode)
            scorer = project.scorer_of(modes.model, run.sizes.pass_bytes, quantization_of(mode))
            _measure_lone_text(run, scorer, mode)
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
