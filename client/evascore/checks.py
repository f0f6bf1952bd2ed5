"""Implements the checks of `evascore doctor`; each gives a state and a remedy.

The service is checked over HTTP. Settings, packages, GPU and disk can only be checked on its own
machine: there a subprocess runs the Python of the service's folder, so that the client imports
none of its code.
"""

import json
import math
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evascore.errors import (
    CapacityError,
    EvascoreError,
    Forbidden,
    ServiceError,
    ServiceUnreachable,
    Unauthorized,
    WorkerUnavailable,
)
from evascore.http.transport import KEY_VARIABLE
from evascore.sync import Client
from evascore.wording import counted

PROBE_BYTES = 64 * 1024**2
# Redis syncs its append-only file; on a slower disk that would stall it.
MIN_WRITE_MB_PER_S = 50.0
MAX_SYNC_MS = 50.0
MIN_FREE_BYTES = 5 * 1024**3
PYTHON_S = 120

# End of a message whose remedy the check gives.
_TRY_AGAIN = re.compile(r"; try again after \d+ s\.$")

_MODEL_FACTS = ("revision", "quantization", "dtype", "backend")

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report: what was checked, its state, and what to do if it is not ok."""

    name: str
    state: State
    detail: str
    remedy: str = ""


# --- the service, over HTTP -----------------------------------------------------------------------


def of_service(client: Client) -> Iterator[Check]:
    """Check the web server, Redis, the worker, the model and the queue over HTTP."""
    try:
        client.get("/healthz", timeout_s=5)
    except EvascoreError as error:
        remedy = "start it with `make run`, or give its URL with --url or EVASCORE_URL"
        yield _failed("web server", error, remedy)
        return
    port = client.url.port or (443 if client.url.scheme == "https" else 80)
    yield Check("web server", "ok", f"answers at {client.url.host}:{port}")
    try:
        info = client.info(timeout_s=5)
        stats = _stats(client)
    except EvascoreError as error:
        yield _failed("redis", error, "see the log of Redis, and the setting EVASCORE_REDIS_URL")
        return
    yield Check("redis", "ok", "answers")
    if isinstance(stats, Check):
        yield stats
        yield _readiness(client, None)
        yield from _model(info.model)
        if stats.state == "failed":
            return
    else:
        yield _readiness(client, stats["workers"])
        yield from _model(info.model)
        yield _queue(stats["queue"])
    yield from _scoring(client)


def _stats(client: Client) -> dict[str, Any] | Check:
    """Return `/stats`, or a check of the API key if the key may not read it."""
    try:
        return client.get("/stats", timeout_s=5)
    except Unauthorized as error:
        remedy = f"set the variable {KEY_VARIABLE} to a key that the operator gave"
        return Check("api key", "failed", str(error), remedy)
    except Forbidden:
        return Check("api key", "ok", "valid; without the scope metrics, so the queue is not shown")


def _readiness(client: Client, workers: list[dict[str, Any]] | None) -> Check:
    """Whether a worker is ready; `workers` is None where the API key may not read them."""
    try:
        client.get("/readyz", timeout_s=5)
    except WorkerUnavailable as error:
        if workers is None:
            return Check("worker", "failed", str(error), "start one, or wait")
        if workers:
            return Check("worker", "warning", str(error), "wait, then retry")
        return Check(
            "worker", "failed", "not running", "start one; the log of the last says why it ended"
        )
    except EvascoreError as error:
        return _failed("worker", error, "see the log of the worker")
    if workers is None:
        return Check("worker", "ok", "ready")
    named = ", ".join(f"{worker.get('name')} {worker.get('state')}" for worker in workers)
    return Check("worker", "ok", named)


def _model(model: Mapping[str, Any] | None) -> Iterator[Check]:
    if model is None:
        yield Check("model", "skipped", "unknown without a worker")
        return
    shown = [model.get(name) for name in ("name", "fingerprint", *_MODEL_FACTS)]
    detail = " ".join(str(value) for value in shown if value)
    if model.get("is_demo"):
        remedy = "set EVASCORE_MODEL to the folder of a checkpoint or its name on the Hub"
        yield Check("model", "warning", f"{detail} (the bundled demo)", remedy)
    else:
        yield Check("model", "ok", detail)
    if advice := model.get("advice"):
        remedy = "use EVASCORE_QUANTIZATION=none and EVASCORE_DTYPE=float32 if the memory suffices"
        yield Check("speed", "warning", advice, remedy)


def _queue(queue: Mapping[str, int]) -> Check:
    share = max(queue["jobs"] / queue["max_jobs"], queue["bytes"] / queue["max_bytes"])
    detail = f"{counted(queue['jobs'], 'job')}, {counted(queue['bytes'], 'byte')}, {share:.0%} full"
    if share > 0.9:
        return Check("queue", "warning", detail, "send fewer texts, or add workers")
    return Check("queue", "ok", detail)


def _scoring(client: Client) -> Iterator[Check]:
    begun = time.monotonic()
    try:
        score = client.score("evascore doctor", timeout_s=20)
    except Forbidden as error:
        yield Check("scoring", "failed", str(error), "ask the operator for a key with the scope")
        return
    except EvascoreError as error:
        request = error.request_id if isinstance(error, ServiceError) else None
        remedy = f"search the logs for {request}" if request else "see the log of the worker"
        yield _failed("scoring", error, remedy)
        return
    ms = (time.monotonic() - begun) * 1000
    nats = score.log_likelihood_nats
    yield Check("scoring", "ok", f"one text in {ms:.0f} ms; its log-likelihood is {nats:.2f} nats")


def _failed(name: str, error: EvascoreError, remedy: str) -> Check:
    """A check that failed with an error.

    Args:
        remedy: what to do unless the error itself says what.
    """
    detail = str(error)
    if isinstance(error, CapacityError) and error.retry_after_s is not None:
        remedy = f"wait {math.ceil(error.retry_after_s)} s"
        detail = _TRY_AGAIN.sub("", detail)
    elif isinstance(error, ServiceUnreachable) and error.says_remedy:
        remedy = ""
    return Check(name, "failed", detail, remedy)


# --- the machine of the service -------------------------------------------------------------------

# Runs in the service's own Python; prints one JSON object.
_ASK = """
import importlib.metadata as metadata, json
report = {"packages": {}}
try:
    from contract.settings import SettingsInvalid, load_settings
    try:
        settings = load_settings()
        report["data_dir"] = str(settings.data_dir.absolute())
        report["quantization"] = settings.quantization
    except SettingsInvalid as error:
        report["settings_error"] = str(error)
except ImportError as error:
    report["import_error"] = str(error.name)
for name in ("torch", "triton", "bitsandbytes", "transformers"):
    try:
        report["packages"][name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
try:
    import torch
    gpus = range(torch.cuda.device_count())
    report["gpus"] = [
        [torch.cuda.get_device_name(gpu), *torch.cuda.get_device_capability(gpu)] for gpu in gpus
    ]
except ImportError:
    pass
print(json.dumps(report))
"""


def of_machine(folder: Path) -> Iterator[Check]:
    """Check settings, packages, compiler, GPU and disk of the machine of the service.

    Args:
        folder: the folder of the service's code.
    """
    report = _ask_python(folder)
    if isinstance(report, Check):
        yield report
        return
    yield _settings(report)
    gpus = report.get("gpus", [])
    yield from _packages(report, has_gpu=bool(gpus))
    yield _compiler(has_gpu=bool(gpus))
    yield _gpu(gpus)
    yield _disk(Path(report.get("data_dir", folder)))


def is_service_folder(folder: Path) -> bool:
    """Whether a folder contains the service's code."""
    return (folder / "contract" / "settings.py").is_file()


def _ask_python(folder: Path) -> dict[str, Any] | Check:
    python = folder / ".venv" / "bin" / "python"
    if not python.exists():
        return Check(
            "installation", "failed", f"{python} is missing", "run `make venv` in that folder"
        )
    try:
        ran = subprocess.run(
            [python, "-c", _ASK],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=PYTHON_S,
            check=True,
        )
        report: dict[str, Any] = json.loads(ran.stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        detail = f"{python} does not run ({type(error).__name__})"
        return Check("installation", "failed", detail, "delete .venv and run `make venv`")
    return report


def _settings(report: Mapping[str, Any]) -> Check:
    if "import_error" in report:
        detail = f"the package {report['import_error']} is missing"
        return Check("settings", "failed", detail, "run `make venv`")
    if "settings_error" in report:
        return Check("settings", "failed", report["settings_error"], "see docs/settings.md")
    return Check("settings", "ok", "valid in the environment of this shell")


def _packages(report: Mapping[str, Any], *, has_gpu: bool) -> Iterator[Check]:
    packages = report["packages"]
    for name in ("torch", "bitsandbytes", "triton"):
        if name in packages:
            yield Check(name, "ok", packages[name])
            continue
        is_needed = (
            name == "torch"
            or (name == "bitsandbytes" and report.get("quantization", "none") != "none")
            or (name == "triton" and has_gpu)
        )
        state: State = "failed" if is_needed else "warning"
        yield Check(name, state, "not installed", "run `make venv`")


def _compiler(*, has_gpu: bool) -> Check:
    found = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if found:
        return Check("compiler", "ok", str(shutil.which(found)))
    if has_gpu:
        return Check(
            "compiler", "failed", "none; Triton needs one", "install one: apt-get install gcc"
        )
    return Check("compiler", "skipped", "none; not needed without a GPU")


def _gpu(gpus: list[list[Any]]) -> Check:
    if gpus:
        named = ", ".join(f"{name} (capability {major}.{minor})" for name, major, minor in gpus)
        return Check("gpu", "ok", named)
    if shutil.which("nvidia-smi"):
        remedy = "run nvidia-smi and compare the CUDA version of the driver with that of torch"
        return Check("gpu", "failed", "torch does not find the GPU of this machine", remedy)
    return Check("gpu", "warning", "none; the model runs on the CPU", "enough for the demo model")


def _disk(folder: Path) -> Check:
    """Measure write speed and sync time of the disk of the data folder."""
    while not folder.exists():
        folder = folder.parent
    try:
        write_mb_per_s, sync_ms = _write_speed(folder)
    except OSError as error:
        remedy = "free some space, or set EVASCORE_DATA_DIR to another disk"
        return Check("disk", "failed", f"{folder}: {error.strerror}", remedy)
    free = shutil.disk_usage(folder).free
    detail = f"{write_mb_per_s:,.0f} MB/s, {sync_ms:.1f} ms to sync, {free / 1e9:,.0f} GB free"
    if write_mb_per_s < MIN_WRITE_MB_PER_S or sync_ms > MAX_SYNC_MS or free < MIN_FREE_BYTES:
        return Check("disk", "warning", detail, "set EVASCORE_DATA_DIR to a faster or larger disk")
    return Check("disk", "ok", detail)


def _write_speed(folder: Path) -> tuple[float, float]:
    """Megabytes written per second, and the median time of a small synced write in ms."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        begun = time.perf_counter()
        block = bytes(1024**2)
        for _ in range(PROBE_BYTES // len(block)):
            file.write(block)
        os.fsync(file.fileno())
        write_s = time.perf_counter() - begun
        sync_s = []
        for _ in range(9):
            begun = time.perf_counter()
            file.write(b"x" * 512)
            os.fsync(file.fileno())
            sync_s.append(time.perf_counter() - begun)
    return PROBE_BYTES / 1e6 / write_s, sorted(sync_s)[4] * 1000
