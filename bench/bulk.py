"""Compares `evascore bulk` with `python -m model score`, and measures what an upload costs.

Both commands score the same texts, in turns. The start-up time of `python -m model score` is
measured with one text and subtracted. `evascore bulk` is timed from its start to its end. The CPU
time of all processes shows what takes time besides the model, also on a busy machine.

The upload is measured without a worker, so that all of it is in Redis at its end.
"""

import argparse
import math
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import orjson
import psutil
import redis

from bench.results import Results
from contract.settings import DEMO_CHECKPOINT, REPOSITORY
from tests.conftest import RedisServer
from tests.service import Service
from tests.web import WebServer

PROSE = REPOSITORY / "LICENSE"
MIN_TEXT_BYTES, MAX_TEXT_BYTES = 20, 200
NDJSON = {"Content-Type": "application/x-ndjson"}
START_S = 300.0
WARM_UP_TEXTS = 500
SAMPLE_S = 0.1
PIECE_LINES = 1000


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument(
        "--pairs", type=int, default=1, help="runs of each command; 0 measures only the upload"
    )
    parser.add_argument(
        "--upload-mb", type=int, default=200, help="size of the upload; 0 measures only the runs"
    )
    parser.add_argument("--model", type=Path, default=Path(DEMO_CHECKPOINT))
    parser.add_argument(
        "--limit-s", type=float, default=math.inf, help="stop after so many seconds"
    )
    options = parser.parse_args()
    texts = f"{MIN_TEXT_BYTES} to {MAX_TEXT_BYTES} bytes, uniform, English prose"
    if options.pairs:
        setup = {"texts": options.texts, "pairs": options.pairs, "model": options.model.name}
        with Results("bulk", {**setup, "each_text": texts}, limit_s=options.limit_s) as results:
            _measure_throughput(results, options.model, options.texts, options.pairs)
    if options.upload_mb:
        with Results(
            "bulk_upload", {"upload_mb": options.upload_mb, "each_text": texts}
        ) as results:
            results.step(f"upload {options.upload_mb:,} MB")
            results.put(_upload(options.upload_mb * 1_000_000), is_printed=False)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a command took."""

    wall_s: float
    cpu_s: float


def _measure_throughput(results: Results, model: Path, num_texts: int, num_pairs: int) -> None:
    """Measure texts per second through both commands, in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, warm_up, one = folder / "in.jsonl", folder / "warm_up.jsonl", folder / "one.jsonl"
        for path, count in ((source, num_texts), (warm_up, WARM_UP_TEXTS), (one, 1)):
            path.write_bytes(b"".join(_lines(count)))
        results.step("start the service")
        service = Service(folder, model).start(timeout_s=START_S)
        pairs: list[dict[str, float]] = []
        try:
            _run_bulk(service, warm_up, folder / "warm_up")
            for number in range(num_pairs):
                results.step(f"pair {number + 1} of {num_pairs}")
                pairs.append(_pair(service, source, one, num_texts))
                results.put(_figures_of(pairs))
        finally:
            service.stop()


def _figures_of(pairs: list[dict[str, float]]) -> dict[str, Any]:
    """Return the median of each figure."""
    figures = {name: median(pair[name] for pair in pairs) for name in pairs[0]}
    return {
        **{name: round(figure, 3) for name, figure in figures.items()},
        "ratio_of_each_pair": [round(pair["bulk_to_command_ratio"], 3) for pair in pairs],
    }


def _pair(service: Service, source: Path, one: Path, num_texts: int) -> dict[str, float]:
    """One run of each, one after the other."""
    with _Watch(_processes(service)) as watch:
        bulk = _run_bulk(service, source, source.with_name("out.jsonl"))
    starting, whole = (_run_model(service.model, path) for path in (one, source))
    command_s, command_cpu_s = whole.wall_s - starting.wall_s, whole.cpu_s - starting.cpu_s
    cpu_s = {"client": bulk.cpu_s, **watch.cpu_s}
    return {
        "bulk_texts_per_s": num_texts / bulk.wall_s,
        "command_texts_per_s": num_texts / command_s,
        "bulk_to_command_ratio": command_s / bulk.wall_s,
        "command_cpu_s": command_cpu_s,
        "bulk_cpu_s": sum(cpu_s.values()),
        **{f"bulk_cpu_s_{name}": used_s for name, used_s in cpu_s.items()},
        "command_to_bulk_cpu_ratio": command_cpu_s / sum(cpu_s.values()),
        **watch.rss_mb(),
    }


def _processes(service: Service) -> dict[str, list[psutil.Process]]:
    web = service.part("web")
    return {
        "worker": [service.part("worker")],
        "web": [web, *web.children()],
        "redis": [service.part("redis")],
    }


def _run_bulk(service: Service, source: Path, target: Path) -> Run:
    command = [sys.executable, "-m", "evascore", "bulk", str(source), str(target), "--overwrite"]
    return _timed([*command, "--url", service.url], REPOSITORY / "client")


def _run_model(model: Path, source: Path) -> Run:
    # As the worker has it.
    command = ["env", "OMP_WAIT_POLICY=passive", sys.executable, "-m", "model", "score"]
    return _timed([*command, "--model", str(model)], REPOSITORY, source)


def _timed(command: Sequence[str], folder: Path, source: Path | None = None) -> Run:
    """Run a command to its end, with `source` on its stdin."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with (source or Path("/dev/null")).open("rb") as stdin:
        subprocess.run(command, stdin=stdin, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(wall_s, used_s)


def _upload(num_bytes: int) -> dict[str, Any]:
    """What an upload of about `num_bytes` costs a web server without workers, and its Redis."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        # More lines than a batch may have by default.
        web = WebServer(Path(folder), server.url, max_upload_lines=num_bytes // 50).start()
        try:
            with redis.Redis(port=server.port) as client, web.client() as http:
                return _measured_upload(web, http, client, num_bytes)
        finally:
            web.stop()
            server.kill()


def _measured_upload(
    web: WebServer, http: httpx.Client, client: redis.Redis, num_bytes: int
) -> dict[str, Any]:
    _post(http, _pieces(1_000_000))
    before = client.info("memory")["used_memory"]
    assert web.process is not None
    gunicorn = psutil.Process(web.process.pid)
    processes = {"web": [gunicorn, *gunicorn.children()]}
    with _Watch(processes) as watch:
        began = time.perf_counter()
        batch = _post(http, _pieces(num_bytes))
        elapsed_s = time.perf_counter() - began
    held = client.info("memory")["used_memory"] - before
    num_lines = batch["request_counts"]["total"]
    return {
        "upload_mb_per_s": round(num_bytes / elapsed_s / 1e6, 2),
        "upload_lines_per_s": round(num_lines / elapsed_s),
        "upload_lines": num_lines,
        "redis_bytes_per_queued_text": round(held / num_lines, 1),
        "redis_bytes_per_queued_text_byte": round(held / batch["num_bytes"], 3),
        "web_cpu_us_per_line": round(watch.cpu_s["web"] / num_lines * 1e6, 1),
        **watch.rss_mb(),
    }


def _post(http: httpx.Client, content: bytes | Iterator[bytes]) -> dict[str, Any]:
    response = http.post("/batches", content=content, headers=NDJSON, timeout=600)
    response.raise_for_status()
    batch: dict[str, Any] = response.json()
    return batch


class _Watch:
    """Watches the memory and the CPU time of processes, by the name of what they are."""

    def __init__(self, processes: Mapping[str, list[psutil.Process]]) -> None:
        self._processes = processes
        self._before = self._most = self._after = self._rss()
        self.cpu_s = {name: -used_s for name, used_s in self._used_s().items()}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._after = self._rss()
        self.cpu_s = {name: self.cpu_s[name] + used_s for name, used_s in self._used_s().items()}

    def rss_mb(self) -> dict[str, float]:
        """The memory of each before, at most, and after."""
        moments = {"before": self._before, "at_most": self._most, "after": self._after}
        return {
            f"{name}_rss_mb_{moment}": round(rss[name] / 1e6, 1)
            for name in self._processes
            for moment, rss in moments.items()
        }

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self._most = {name: max(self._most[name], now) for name, now in self._rss().items()}

    def _rss(self) -> dict[str, int]:
        return {
            name: sum(process.memory_info().rss for process in processes)
            for name, processes in self._processes.items()
        }

    def _used_s(self) -> dict[str, float]:
        """CPU time since their start, that of ended children not included."""
        times = {
            name: [process.cpu_times() for process in processes]
            for name, processes in self._processes.items()
        }
        return {name: sum(t.user + t.system for t in each) for name, each in times.items()}


def _lines(count: int) -> Iterator[bytes]:
    """Pieces of English prose, the same each time."""
    prose, generator = PROSE.read_text(), random.Random(0)
    for number in range(count):
        num_chars = generator.randint(MIN_TEXT_BYTES, MAX_TEXT_BYTES)
        begin = generator.randrange(len(prose) - num_chars)
        line = {"custom_id": str(number), "text": prose[begin : begin + num_chars]}
        yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _pieces(num_bytes: int) -> Iterator[bytes]:
    """The same lines over and over, about `num_bytes` of them."""
    piece = b"".join(_lines(PIECE_LINES))
    for _ in range(num_bytes // len(piece)):
        yield piece


if __name__ == "__main__":
    main()
