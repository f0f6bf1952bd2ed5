"""Keeps the status of a worker process up to date; its lease stores it."""

import os
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from contract import __version__, keys
from contract.histogram import (
    BATCH_TEXTS_BOUNDS,
    INFERENCE_BOUNDS_S,
    STAGE_BOUNDS_S,
    Histogram,
)
from contract.service_clock import CLOCK
from contract.store.queue.model_registry import PRIORITY_NAMES
from contract.worker_status import (
    STAGES,
    GpuUse,
    Stage,
    StartupStatus,
    WorkerStatus,
    stage_name,
)
from worker.process.startup import Startup

_RATE_SMOOTHING = 0.2
# The status page draws these. The status is written with every renewal, so they stay few.
RECENT_BATCHES = 40
RECENT_JOBS = 100


class OwnStatus(WorkerStatus):
    """The status of this process, kept up to date; the value of its lease."""

    def __init__(self, name: str, batch_bytes: int, startup: Startup) -> None:
        super().__init__(
            name=name,
            state="starting",
            batch_bytes=batch_bytes,
            histograms={
                "batch_texts": Histogram(BATCH_TEXTS_BOUNDS),
                "inference_s": Histogram(INFERENCE_BOUNDS_S),
                **{
                    stage_name(stage, priority): Histogram(STAGE_BOUNDS_S)
                    for stage in STAGES
                    for priority in PRIORITY_NAMES
                },
            },
            release=__version__,
            host=socket.gethostname(),
            pid=os.getpid(),
            pid_namespace=_pid_namespace(),
            started_at=CLOCK.now(),
        )
        self._startup = startup
        self.refused_since: float | None = None
        """Since when the oldest refused ending waits, by the monotonic clock."""
        self._step_at = time.monotonic()
        self.read_gpu: Callable[[], GpuUse | None] = lambda: None
        """Asks NVML for the use of the worker's GPU, once the model is loaded."""

    def note_step(self) -> None:
        """Note that the worker makes progress: a pass or ending is done, or a fetch answered."""
        self._step_at = time.monotonic()

    def count_refusals(self, reason: str, count: int) -> None:
        """Add endings that Redis refused to the figures."""
        before = self.refused_endings.get(reason, 0)
        self.refused_endings = {**self.refused_endings, reason: before + count}

    def count_micro_batch(
        self, num_slices: int, num_bytes: int, elapsed_s: float, *, num_texts: int
    ) -> None:
        """Add a scored micro-batch to the figures.

        Args:
            num_texts: those that had their last slice in it.
        """
        self.num_batches += 1
        self.num_texts += num_texts
        self.num_bytes += num_bytes
        self.histograms["batch_texts"].observe(num_slices)
        self.histograms["inference_s"].observe(elapsed_s)
        rate = num_bytes / max(elapsed_s, 1e-6)
        before = rate if self.bytes_per_s is None else self.bytes_per_s
        self.bytes_per_s = before + _RATE_SMOOTHING * (rate - before)
        batch = (num_slices, num_bytes, round(elapsed_s * 1000, 1))
        # Replaced, not changed: the lease's thread may be writing the old one.
        self.recent_batches = (*self.recent_batches, batch)[-RECENT_BATCHES:]

    def count_stage(self, stage: Stage, priority: int, elapsed_s: float) -> None:
        """Add the time that a job spent in a stage to the figures."""
        name = "bulk" if priority == keys.BULK else "interactive"
        # The clock of Redis may have been set meanwhile.
        self.histograms[stage_name(stage, name)].observe(max(elapsed_s, 0.0))

    def count_latencies(self, latencies_s: Iterable[float]) -> None:
        """Add the times from the POST to the stored result of interactive jobs."""
        # The clock of Redis may have been set meanwhile.
        latencies_ms = (round(max(latency_s, 0.0) * 1000, 1) for latency_s in latencies_s)
        self.recent_latencies_ms = (*self.recent_latencies_ms, *latencies_ms)[-RECENT_JOBS:]

    def encode(self) -> bytes:
        """The status as it is now, with the phases of the start."""
        self.startup = StartupStatus(**self._startup.as_json())
        self.gpu = self.read_gpu()
        now, refused_since = time.monotonic(), self.refused_since
        self.silent_s = round(now - self._step_at, 1)
        self.unstored_s = round(now - refused_since, 1) if refused_since is not None else 0.0
        return super().encode()


def _pid_namespace() -> str:
    """The boot of the kernel and the PID namespace, as Linux names them; '' elsewhere."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
