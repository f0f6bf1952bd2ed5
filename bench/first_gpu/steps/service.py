"""Measures the whole service as `make run` starts it: ready, posts of 16 clients, a bulk run."""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from bench.first_gpu import project
from bench.first_gpu.project import CLIENT_FOLDER, DEMO, REPOSITORY
from bench.first_gpu.run import Run
from bench.first_gpu.texts import mixed_lengths, random_string
from deploy.embedded_redis import free_port

NUM_CLIENTS = 16
NUM_FIRST_POSTS = 32
# Less than a part has to stop: see bench/first_gpu/processes.py. A rehearsal may run on a busy
# machine.
STOP_S, REHEARSAL_STOP_S = 8, 120
READY_POLL_S = 0.2
ANSWER_S = 40
NUM_DIFFERENT_TEXTS = 500
# Memory or disk for a checkpoint of 13 GB and its quantized copy.
SPACE = 2.2
SHARD_SIZE = "5GB"


def measure_demo(run: Run) -> None:
    """Measure the service with the demo checkpoint: the cost of all but the model."""
    _measure_service(run, "demo", DEMO, run.sizes.num_bulk)


def measure_6b(run: Run) -> None:
    """Measure the service with random weights of the size of EvaByte 6.5B, plain and as int8."""
    needed = SPACE * run.sizes.checkpoint_bytes
    folders = ("/dev/shm", tempfile.gettempdir())  # noqa: S108 - the folder inside is our own
    places = [place for place in folders if os.path.isdir(place) and _free_bytes(place) > needed]
    if not places:
        run.put("6.5B checkpoint: left out", why="no place for it", needs_gb=round(needed / 1e9))
        return
    with tempfile.TemporaryDirectory(dir=places[0]) as folder:
        with run.part("6.5B checkpoint"):
            _write_checkpoint(run, Path(folder))
        settings = {"EVASCORE_MICRO_BATCH_BYTES": "65536"}
        for name, quantization in (("6.5B", "none"), ("6.5B int8", "int8")):
            settings["EVASCORE_QUANTIZATION"] = quantization
            _measure_service(run, name, Path(folder), run.sizes.num_bulk_6b, **settings)


def _free_bytes(folder: str) -> int:
    return shutil.disk_usage(folder).free


def _write_checkpoint(run: Run, folder: Path) -> None:
    began = time.perf_counter()
    model = project.new_model(run.device, run.sizes)
    model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    del model
    run.empty_cache()
    num_bytes = sum(path.stat().st_size for path in folder.iterdir())
    run.put(
        "6.5B checkpoint written",
        seconds=round(time.perf_counter() - began, 1),
        gib=round(num_bytes / 2**30, 2),
        folder=str(folder.parent),
    )


def _measure_service(run: Run, name: str, checkpoint: Path, num_bulk: int, **settings: str) -> None:
    with (
        run.part(f"service {name}", needs_s=5 if run.sizes.is_tiny else 25),
        tempfile.TemporaryDirectory() as folder,
    ):
        port = free_port()
        ours = {
            "EVASCORE_PORT": str(port),
            "EVASCORE_DATA_DIR": str(Path(folder) / "data"),
            "EVASCORE_MODEL": str(checkpoint),
            "EVASCORE_DEVICE": run.device,
        }
        began = time.perf_counter()
        with _started(run, name, {**ours, **settings}) as process:
            _wait_until_ready(run, process, port)
            run.put(f"service {name}: ready", seconds=round(time.perf_counter() - began, 1))
            with run.part(f"posts {name}"):
                _measure_posts(run, name, port)
            with run.part(f"bulk {name}", needs_s=5):
                _measure_bulk(run, name, f"http://127.0.0.1:{port}", Path(folder), num_bulk)


@contextlib.contextmanager
def _started(run: Run, name: str, settings: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the service and stop it at the end; its output goes to service.log."""
    with (run.folder / "service.log").open("ab") as log:
        log.write(f"\n=== {name}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.run"],
            cwd=REPOSITORY,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        status: int | str
        try:
            status = process.wait(STOP_S if run.is_on_gpu else REHEARSAL_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = "killed"
        run.put(f"service {name}: ended", status=status)


def _wait_until_ready(run: Run, process: subprocess.Popen[bytes], port: int) -> None:
    while run.left_s() > 8:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with {process.returncode}; see service.log")
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        time.sleep(READY_POLL_S)
    raise RuntimeError("the service was not ready in time; see service.log")


class _Clients(threading.local):
    """One connection per thread."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)

    def post(self, body: bytes) -> tuple[int, float, dict[str, Any]]:
        """Score one text; return status, seconds and the answer."""
        headers = {"Content-Type": "application/json", "Prefer": "wait=30"}
        began = time.perf_counter()
        self.connection.request("POST", "/score", body, headers)
        response = self.connection.getresponse()
        answer = json.loads(response.read())
        return response.status, time.perf_counter() - began, answer


def _measure_posts(run: Run, name: str, port: int) -> None:
    """Measure texts of 16 clients, each with one at a time."""
    lengths = mixed_lengths(run.sizes, run.sizes.num_posts)
    bodies = [
        json.dumps({"text": random_string(length, seed)}).encode()
        for seed, length in enumerate(lengths)
    ]
    clients = _Clients(port)
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        # All threads connect, and all kernels are compiled.
        list(pool.map(clients.post, bodies[:NUM_FIRST_POSTS]))
        began = time.perf_counter()
        answers = list(pool.map(clients.post, bodies))
        took_s = time.perf_counter() - began
    times = sorted(seconds for _, seconds, _ in answers)
    texts = [answer.get("result", {}).get("batch", {}).get("texts") for _, _, answer in answers]
    # Each text of a micro-batch of n says n: the sum of the inverses is the number of them.
    num_batches = sum(1 / each for each in texts if each)
    run.put(
        f"service {name}: posts of {NUM_CLIENTS} clients",
        texts=len(answers),
        statuses=dict(Counter(status for status, _, _ in answers)),
        texts_per_s=round(len(answers) / took_s, 1),
        bytes_per_s=round(sum(lengths) / took_s),
        median_ms=round(median(times) * 1e3, 1),
        p99_ms=round(times[int(0.99 * len(times))] * 1e3, 1),
        mean_batch_texts=round(len(texts) / num_batches, 1) if num_batches else None,
    )


def _measure_bulk(run: Run, name: str, url: str, folder: Path, count: int) -> None:
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    num_bytes = run.sizes.text_bytes
    texts = (random_string(num_bytes, number % NUM_DIFFERENT_TEXTS) for number in range(count))
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    limit_s = max(run.left_s() - 5, 5)
    began = time.perf_counter()
    status, error = _run_bulk(source, target, url, limit_s)
    took_s = time.perf_counter() - began
    # A run that was cut off has written the lines that came so far, the last one perhaps in part.
    num_lines = target.read_bytes().count(b"\n") if target.exists() else 0
    run.put(
        f"service {name}: bulk",
        texts=count,
        lines=num_lines,
        status=status,
        seconds=round(took_s, 1),
        texts_per_s=round(num_lines / took_s, 1),
        bytes_per_s=round(num_lines * num_bytes / took_s),
        error=error,
    )


def _run_bulk(source: Path, target: Path, url: str, limit_s: float) -> tuple[int | str, str | None]:
    """Score the lines of a file by the client's command; return its status and its last words."""
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "evascore", "bulk", str(source), str(target)),
                *("--overwrite", "--url", url),
            ],
            cwd=CLIENT_FOLDER,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "time limit", None
    return done.returncode, done.stderr[-300:] if done.returncode else None
