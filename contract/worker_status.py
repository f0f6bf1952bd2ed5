"""Defines the status that a worker stores in Redis as the value of its lease.

A reader takes fields that it does not know and fills in fields that are missing. So web servers and
workers of adjacent releases work together.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import orjson
from pydantic import TypeAdapter, ValidationError

from contract.histogram import Histogram
from contract.versions import wrong_fields

VERSION = 1

WorkerState = Literal["starting", "ready", "busy", "draining"]
WARM_STATES: frozenset[WorkerState] = frozenset({"ready", "busy"})
"""The model is loaded, and the worker takes jobs."""

PHASES = {
    "import": "importing libraries",
    "redis": "connecting to Redis",
    "download": "finding or downloading the model",
    "checksum": "verifying the model's files",
    "load": "loading the model",
    "quantize": "quantizing the model",
    "canary": "scoring a canary text",
    "warm_up": "warming up the model",
    "compile": "compiling kernels",
    "consume": "connecting to the queue",
}
"""The phases of a worker's start, in words."""

Stage = Literal["queue", "wait", "compute", "store"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""Of a job: until it is opened, to its first micro-batch, in micro-batches, until it is stored."""


def stage_name(stage: Stage, priority: str) -> str:
    """The name of a stage's histogram, for `interactive` or `bulk`."""
    return f"{stage}_s:{priority}"


class NotAWorkerStatus(ValueError):
    """The bytes are no worker status."""


@dataclass(slots=True)
class StartupStatus:
    """How far a worker's start is."""

    phase: str | None = None
    """The phase that runs; None once the worker is ready."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of each phase that has ended."""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What NVML reports of one GPU."""

    used_bytes: int
    """By all processes."""
    total_bytes: int
    utilization: float | None = None
    """Share of the last sample period in which a kernel ran, 0 to 1; None where it is unknown."""


@dataclass(slots=True, kw_only=True)
class WorkerStatus:
    """The state, the model and the figures of one worker process."""

    name: str
    batch_bytes: int = 0
    """Bytes that the worker scores together in one micro-batch."""
    startup: StartupStatus = field(default_factory=StartupStatus)
    pass_bytes: int | None = None
    """Bytes that the model reads in one forward pass, as far as memory was found to allow."""
    state: WorkerState
    model: dict[str, Any] | None = None
    """None until the model is loaded."""
    num_batches: int = 0
    """Micro-batches, texts and bytes scored since the start. A text counts with its last slice."""
    num_texts: int = 0
    num_bytes: int = 0
    bytes_per_s: float | None = None
    """Smoothed speed of recent micro-batches; None before the first."""
    recent_batches: tuple[tuple[int, int, float], ...] = ()
    """Slices, bytes and compute time in ms of the last micro-batches, oldest first."""
    recent_latencies_ms: tuple[float, ...] = ()
    """Time from the POST to the stored result of the last interactive jobs, oldest first."""
    histograms: dict[str, Histogram] = field(default_factory=dict)
    """`batch_texts` (their slices) and `inference_s` of all micro-batches since the start, and the
    time of each stage of all scored jobs by priority: `stage_name` names them."""
    num_halvings: int = 0
    """How often a micro-batch did not fit into memory since the start, so that it was halved."""
    gpu: GpuUse | None = None
    """Of the worker's GPU; None on a CPU, and where NVML cannot be read."""
    silent_s: float | None = None
    """Time without a step when this was written: without a pass, a stored ending or the answer to
    a fetch."""
    unstored_s: float = 0.0
    """How long the oldest ending that Redis refuses had waited when this was written."""
    refused_endings: dict[str, int] = field(default_factory=dict)
    """How often Redis refused an ending since the start, by reason."""
    release: str | None = None
    """The release that the worker runs; None in the status of release 0.1."""
    host: str = ""
    pid: int = 0
    pid_namespace: str = ""
    """Within which `pid` names one process; '' where the system has no such namespaces, and in the
    status of an earlier release."""
    started_at: float | None = None
    """Unix time, seconds."""

    @property
    def is_warm(self) -> bool:
        """Whether the worker scores what is sent now."""
        return self.state in WARM_STATES

    @property
    def model_name(self) -> str | None:
        """The name of the loaded model."""
        return (self.model or {}).get("name")

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the loaded model; None also in the status of release 0.1."""
        return (self.model or {}).get("fingerprint")

    @property
    def max_text_bytes(self) -> int | None:
        """The longest text that the loaded model takes."""
        return (self.model or {}).get("max_text_bytes")

    def as_json(self) -> dict[str, Any]:
        """The status as `/stats` lists it, with the mean number of slices of a micro-batch."""
        sizes = self.histograms.get("batch_texts")
        mean_batch_texts = sizes.sum / self.num_batches if sizes and self.num_batches else None
        return {**asdict(self), "mean_batch_texts": mean_batch_texts}

    def encode(self) -> bytes:
        """The status as it lies in Redis; `decode_status` reads it."""
        return orjson.dumps({**self.as_json(), "version": VERSION})


_STATUS = TypeAdapter(WorkerStatus)


def decode_status(raw: bytes) -> WorkerStatus:
    """Read a status that this release or an adjacent one wrote.

    Raises:
        NotAWorkerStatus: it is not JSON, lacks its name or state, or a field has a wrong type.
    """
    try:
        return _STATUS.validate_json(raw)
    except ValidationError as error:
        fields = wrong_fields(error) or "not a JSON object"
        raise NotAWorkerStatus(f"This is no worker status; wrong or missing: {fields}.") from None
