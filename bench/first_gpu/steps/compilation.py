"""Measures how long the kernels of a pass of the large model take to compile."""

import time

import torch

from bench.first_gpu import project
from bench.first_gpu.modes import INVARIANT, PLAIN, maker, put_layers
from bench.first_gpu.passes import Pass
from bench.first_gpu.run import Run
from bench.first_gpu.texts import random_text
from model import ScoreRequest

MODES = (PLAIN, "int8", "fp8", INVARIANT)


def compile_model(run: Run) -> None:
    """Run passes of every form with one layer, which has all kernels, in each mode."""
    seconds: list[float] = []
    if run.is_on_gpu:
        project.watch_compilation(seconds.append)
    for mode in MODES:
        with run.part(f"compile {mode}"):
            began = time.perf_counter()
            seconds.clear()
            _run_every_form(run, mode)
            run.put(
                f"compile {mode}",
                kernels=len(seconds),
                compile_s=round(sum(seconds), 1),
                longest_s=round(max(seconds, default=0), 2),
                wall_s=round(time.perf_counter() - began, 1),
            )


def _run_every_form(run: Run, mode: str) -> None:
    model = project.new_model(run.device, run.sizes, num_hidden_layers=1)
    project.fuse_products(model)
    if mode != PLAIN:
        make = maker(mode, run.backend)
        layers = project.linear_layers(model)
        put_layers(model, {name: make(layer.weight.data) for name, layer in layers.items()})
    project.set_backend(model, run.backend)
    window = run.sizes.window
    with torch.inference_mode():
        # Few rows, more, part of a window, several windows.
        for num_bytes in (16, 48, window // 2, 2 * window + 16):
            Pass(model, [num_bytes]).run()
    scorer = project.scorer_of(model, run.sizes.pass_bytes, "none")
    outputs = frozenset({"bytes", "top_k"})
    scorer.score([ScoreRequest(text=random_text(50, 0), outputs=outputs, top_k=5)])
