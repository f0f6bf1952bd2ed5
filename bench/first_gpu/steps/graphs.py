"""Captures passes of few rows as CUDA graphs: whether they keep their bits, and what they save.

A captured pass holds the layers of one kind of pass: its number of tokens, of blocks of attention
and of chunks. Its inputs lie in buffers of its own, which the plan of the next such pass
overwrites. A rehearsal on a CPU computes the layers again in place of a replay: it tests these
buffers, and nothing of CUDA.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from bench.first_gpu import project
from bench.first_gpu.modes import MODES, Modes
from bench.first_gpu.passes import Pass
from bench.first_gpu.project import PassPlan
from bench.first_gpu.run import Run
from bench.first_gpu.texts import texts_of
from bench.first_gpu.timing import wall_s
from model import EvaByteForCausalLM

NUM_WARM_UPS = 3
NUM_TIMED, NUM_REHEARSED = 20, 1
# Calls of CUDA that begin something on the device, as the profiler names them.
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpy", "cudaMemset")


class CapturedPass:
    """The layers of one kind of pass, launched by one call."""

    def __init__(self, run: Run, model: EvaByteForCausalLM, first: Pass) -> None:
        """Capture the pass `first`."""
        self._run, self._model = run, model
        self._plan = self.plan(first)
        self.kind = kind_of(self._plan)
        self.hidden, self.replay = self._capture()

    def plan(self, one: Pass) -> PassPlan:
        """Return the plan of a pass on the device."""
        return project.plan_pass(self._model, one.ids, one.layout)

    def load(self, one: Pass) -> None:
        """Take the inputs of another pass of the same kind.

        Raises:
            ValueError: it is of another kind.
        """
        plan = self.plan(one)
        if kind_of(plan) != self.kind:
            raise ValueError("the pass has other numbers of tokens, blocks or chunks")
        ours, theirs = map(project.tensors_in, (self._plan, plan))
        for target, source in zip(ours, theirs, strict=True):
            target.copy_(source)

    def _capture(self) -> tuple[Tensor, Callable[[], Any]]:
        """Return the buffer of the hidden states, and what computes them from the inputs."""

        def work() -> Tensor:
            return project.run_layers(self._model, self._plan)

        if not self._run.is_on_gpu:
            hidden = work().clone()
            return hidden, lambda: hidden.copy_(work())
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(NUM_WARM_UPS):  # compiles kernels, and makes the workspaces of cuBLAS
                work()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            hidden = work()
        return hidden, graph.replay


def kind_of(value: Any) -> Any:
    """Return all of a plan but the numbers in its tensors: what a capture keeps as it was."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    if isinstance(value, tuple):
        return tuple(map(kind_of, value))
    if dataclasses.is_dataclass(value):
        return tuple(kind_of(getattr(value, each.name)) for each in dataclasses.fields(value))
    return value


def measure(run: Run) -> None:
    """Measure each mode with a lone text, and with texts that fill the shortest budgets."""
    sizes = run.sizes
    kinds = [[sizes.text_bytes], *(texts_of(each, sizes.text_bytes) for each in sizes.budgets[:2])]
    with torch.inference_mode():
        modes = Modes(run)
        for mode in MODES:
            for lengths in kinds:
                with run.part(f"graph {mode}, {sum(lengths)} bytes", needs_s=3):
                    modes.use(mode)
                    _measure_kind(run, modes.model, mode, lengths)


def _measure_kind(run: Run, model: EvaByteForCausalLM, mode: str, lengths: Sequence[int]) -> None:
    """Compare captured passes with plain ones, bit for bit, and time both."""
    first = Pass(model, lengths)
    before = _reserved_bytes(run)
    captured = CapturedPass(run, model, first)
    held_bytes = _reserved_bytes(run) - before
    # Other bytes; the same lengths in another order; then the first again.
    candidates = (Pass(model, lengths, seed=1), Pass(model, lengths[::-1], seed=2), first)
    others = [one for one in candidates if kind_of(captured.plan(one)) == captured.kind]
    num_same = 0
    for one in others:
        expected = project.run_layers(model, captured.plan(one)).clone()
        captured.load(one)
        captured.hidden.zero_()
        captured.replay()
        num_same += bool(torch.equal(captured.hidden, expected))

    def plain() -> None:
        project.run_layers(model, captured.plan(first))

    def replayed() -> None:
        captured.load(first)
        captured.replay()

    repeats = NUM_TIMED if run.is_on_gpu else NUM_REHEARSED
    plain_s, captured_s = (wall_s(run, work, repeats=repeats) for work in (plain, replayed))
    run.put(
        f"graph {mode}",
        bytes=sum(lengths),
        passes=len(others),
        passes_with_same_bits=num_same,
        plain_ms=round(plain_s * 1e3, 3),
        captured_ms=round(captured_s * 1e3, 3),
        plain_launches=_count_launches(run, plain),
        captured_launches=_count_launches(run, replayed),
        held_mib=round(held_bytes / 2**20),
    )


def _reserved_bytes(run: Run) -> int:
    run.synchronize()
    return torch.cuda.memory_reserved() if run.is_on_gpu else 0


def _count_launches(run: Run, work: Callable[[], None]) -> int:
    """Return how often `work` calls CUDA to begin something on the device."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * run.is_on_gpu
    with profile(activities=activities) as recorded:
        work()
        run.synchronize()
    return sum(event.name.startswith(LAUNCHES) for event in recorded.events())
