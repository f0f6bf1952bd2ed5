"""Holds what all steps of a run share: sizes, device, figures, and the time that is left."""

import contextlib
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.first_gpu.figures import Figures
from bench.first_gpu.sizes import Sizes

if TYPE_CHECKING:
    # Where the model cannot be imported, the machine is measured all the same.
    from model.ops.backend import Backend


class OutOfTime(Exception):
    """Ends a step whose next part has no time left; what was measured is kept."""


@dataclass
class Run:
    """One run on one machine; each step has a process and a copy of its own."""

    folder: Path  # holds figures, table and logs
    sizes: Sizes
    device: str  # cuda, or cpu in a rehearsal
    backend: "Backend"
    began_s: float  # by time.time(), as all times here: processes share it
    deadline_s: float
    step: str = "start"
    by_descriptor: bool = True  # whether products may read by tensor descriptor
    figures: Figures = field(init=False)

    def __post_init__(self) -> None:
        self.figures = Figures(self.folder / "first_gpu.jsonl", self.began_s)

    @property
    def is_on_gpu(self) -> bool:
        """Whether this is not a rehearsal."""
        return self.device == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """The type of the model's activations."""
        return getattr(torch, self.sizes.dtype)

    def left_s(self) -> float:
        """Return the seconds until the step's time limit."""
        return self.deadline_s - time.time()

    def put(self, what: str, **figures: Any) -> None:
        """Write one line of figures of this step."""
        self.figures.put(self.step, what, **figures)

    @contextlib.contextmanager
    def part(self, name: str, needs_s: float = 0.0) -> Iterator[None]:
        """Run a part of a step: its failure is a finding, and the next part is tried.

        Raises:
            OutOfTime: less than `needs_s` is left.
            Exception: CUDA is broken, and every later part in this process would fail.
        """
        if self.left_s() < needs_s:
            self.put(f"{name}: left out", needs_s=needs_s, left_s=round(self.left_s(), 1))
            raise OutOfTime
        try:
            yield
        except OutOfTime:
            raise
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{type(error).__name__}: {str(error)[:700]}"
            self.put(f"{name}: FAILED", error=message, at=f"{where.filename}:{where.lineno}")
            traceback.print_exception(error)
            if self._is_device_broken():
                raise
            self.empty_cache()

    def _is_device_broken(self) -> bool:
        """Tell whether every later call of CUDA fails; libraries also say "CUDA error" if not."""
        try:
            self.synchronize()
        except RuntimeError:
            return True
        return False

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.is_on_gpu:
            torch.cuda.synchronize()

    def empty_cache(self) -> None:
        """Give memory that PyTorch holds and does not use back to the device."""
        if self.is_on_gpu:
            torch.cuda.empty_cache()

    def unused_bytes(self) -> int:
        """Return the memory that PyTorch holds and no tensor uses; 0 on a CPU."""
        if not self.is_on_gpu:
            return 0
        return torch.cuda.memory_reserved() - torch.cuda.memory_allocated()

    def randn(self, *size: int) -> torch.Tensor:
        """Return normal numbers on the device, in the type of the activations."""
        return torch.randn(size, device=self.device, dtype=torch.float32).to(self.dtype)
