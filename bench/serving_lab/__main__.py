"""Measures queues, micro-batches and workers on this machine, for somebody who learns serving.

`make serving-lab` first makes the virtual environment of FastAPI. docs/serving-lab.md says what to
see in the table and the plots, and why. All servers have the same model, one thread and one core.
Table and plots are written after each measurement.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

import httpx
import torch

from bench.fleet import Fleet, fleet, num_cores, pin
from bench.peers.load import Load, send_for
from bench.peers.servers import PEERS_PYTHON, started
from bench.results import RESULTS, Results
from bench.serving_lab import plots
from bench.serving_lab.rows import Row, row_beside, row_of, table
from bench.serving_lab.stages import Total, means, totals
from bench.texts import make_texts
from contract.settings import DEMO_CHECKPOINT
from model import Scorer, ScoreRequest

PARTS = ("fastapi", "compute", "micro-batches", "workers")
# Settings of the worker. A micro-batch ends at the first limit that it reaches.
LIMITS: dict[str, Mapping[str, str]] = {
    "1 text": {"micro_batch_texts": "1"},
    "4 texts": {"micro_batch_texts": "4"},
    "512 bytes": {"micro_batch_bytes": "512"},
    "16,384 bytes": {},
}
NUM_TEXTS = 500
WARM_UP_S = 1.0
SIZES = (1, 2, 4, 8, 16, 32, 64)
TEXT_BYTES, NUM_RUNS = 100, 5
# A worker writes its figures with its lease, every 1.25 s.
FIGURES_LIMIT_S = 300.0
_POLL_S = 0.1


class NoFigures(Exception):
    """`/metrics` does not count all texts that were scored."""


@dataclass(frozen=True, slots=True)
class Series:
    """Workers that are measured with one client, and with more and more of them."""

    part: str
    name: str
    clients: Sequence[int]
    num_workers: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Lab:
    """What was measured so far, on disk after each step."""

    results: Results
    folder: Path
    rows: list[Row] = field(default_factory=list)
    num_texts_ms: list[tuple[float, float]] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Keep a row."""
        self.rows.append(row)
        self.results.put(row.figures(), is_printed=False)
        stages = f"queue {row.queue_ms:.1f}, wait {row.wait_ms:.1f}, compute {row.compute_ms:.1f}"
        print(f"          {row.texts_per_s:.1f} texts per second; ms: {stages}", flush=True)
        self._write()

    def add_compute(self, num_texts: int, ms_per_text: float) -> None:
        """Keep the compute time of micro-batches of one size."""
        self.num_texts_ms.append((num_texts, ms_per_text))
        self.results.put({f"compute_{num_texts}_texts_ms_per_text": round(ms_per_text, 2)})
        self._write()

    def _write(self) -> None:
        (self.folder / "serving_lab_table.md").write_text(table(self.rows))
        plots.draw(self.rows, self.num_texts_ms, self.folder)


def main() -> None:
    """Measure and write the results."""
    options = _options()
    setup = {
        "model": options.model.name,
        "clients": options.clients,
        "seconds_of_each_load": options.seconds,
        "text_bytes": [len(text) for text in (min(_texts(), key=len), max(_texts(), key=len))],
        "cores": num_cores(),
    }
    folder = options.folder
    with Results("serving_lab", setup, limit_s=options.limit_s, folder=folder) as results:
        measure(Lab(results, folder), options)


def measure(lab: Lab, options: argparse.Namespace) -> None:
    """Measure the parts that were asked for, one after the other."""
    if "fastapi" in options.parts:
        _measure_fastapi(lab, options)
    if "compute" in options.parts:
        _measure_compute(lab, options.model)
    for series in _series(options.clients, options.limits):
        if series.part in options.parts:
            _measure_series(lab, series, options)


def _series(clients: Sequence[int], limits: Sequence[str]) -> Iterator[Series]:
    for name in limits:
        yield Series("micro-batches", name, clients, settings=LIMITS[name])
    # Two workers need twice the clients to be at work all the time.
    more = [*clients, 2 * max(clients)]
    yield Series("workers", "1 worker", more)
    yield Series("workers", "2 workers", more, num_workers=2)


def _measure_fastapi(lab: Lab, options: argparse.Namespace) -> None:
    """FastAPI alone, which scores one text at a time."""
    lab.results.step("FastAPI: start")
    command = [str(PEERS_PYTHON), "-m", "bench.peers.fastapi_server", "--threads", "1"]
    with (
        tempfile.TemporaryDirectory() as folder,
        started([*command, "--model", str(options.model)], Path(folder)) as server,
    ):
        pin(server.root.pid, 0)
        _send(server.port, 1, WARM_UP_S)
        alone_ms: float | None = None
        for clients in options.clients:
            lab.results.step(f"FastAPI: {clients} clients")
            load = _send(server.port, clients, options.seconds)
            alone_ms = mean(load.latencies_ms) if alone_ms is None else alone_ms
            lab.add(row_beside(("fastapi", "FastAPI", clients), load, alone_ms))


def _measure_compute(lab: Lab, model: Path) -> None:
    """The model alone, without a server: what a micro-batch of each size takes."""
    torch.set_num_threads(1)
    scorer = Scorer.load(str(model))
    scorer.warm_up()
    for num_texts, ms_per_text in compute_times(scorer):
        lab.results.step(f"compute: micro-batch of {num_texts} texts")
        lab.add_compute(num_texts, ms_per_text)


def compute_times(scorer: Scorer) -> Iterator[tuple[int, float]]:
    """Yield sizes of micro-batches, and the compute time per text in ms: medians of some runs."""
    texts = [text[:TEXT_BYTES].encode() for text in _texts() if len(text) >= TEXT_BYTES]
    for num_texts in SIZES:
        requests = [ScoreRequest(text) for text in texts[:num_texts]]
        times_s = []
        for _ in range(NUM_RUNS):
            began = time.perf_counter()
            scorer.score(requests)
            times_s.append(time.perf_counter() - began)
        yield num_texts, median(times_s) / num_texts * 1000


def _measure_series(lab: Lab, series: Series, options: argparse.Namespace) -> None:
    """evascore with the settings of a series."""
    lab.results.step(f"{series.name}: start")
    with fleet(options.model, series.num_workers, series.settings, has_web=True) as workers:
        assert workers.web is not None
        warm = _send(workers.web.port, 4, WARM_UP_S)
        before = _counted(workers, warm.num_texts)
        for clients in series.clients:
            lab.results.step(f"{series.name}: {clients} clients")
            load = _send(workers.web.port, clients, options.seconds)
            after = _counted(workers, int(before["store"].number) + load.num_texts)
            place = series.part, series.name, clients
            lab.add(row_of(place, load, means(before, after)))
            before = after


def _counted(workers: Fleet, num_texts: int) -> dict[str, Total]:
    """What `/metrics` says once it counts this many texts. Raises: NoFigures"""
    assert workers.web is not None
    deadline = time.monotonic() + FIGURES_LIMIT_S
    while True:
        page = httpx.get(f"{workers.web.url}/metrics", timeout=FIGURES_LIMIT_S).text
        found = totals(page)
        if found["store"].number >= num_texts:
            return found
        if time.monotonic() > deadline:
            raise NoFigures(
                f"/metrics counts {found['store'].number:g} of {num_texts} texts after "
                f"{FIGURES_LIMIT_S:g} s"
            )
        time.sleep(_POLL_S)


def _send(port: int, clients: int, seconds: float) -> Load:
    return asyncio.run(send_for(port, _texts(), num_clients=clients, seconds=seconds))


def _texts() -> list[str]:
    return make_texts(NUM_TEXTS)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--limits",
        nargs="+",
        choices=LIMITS,
        default=list(LIMITS),
        help="of a micro-batch, to compare",
    )
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 16])
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    parser.add_argument("--limit-s", type=float, default=900, help="start no step after it")
    parser.add_argument("--model", type=Path, default=Path(DEMO_CHECKPOINT))
    parser.add_argument("--folder", type=Path, default=RESULTS, help="for the table and the plots")
    options = parser.parse_args()
    if "fastapi" in options.parts and not PEERS_PYTHON.exists():
        parser.error("FastAPI is not installed; run make serving-lab")
    return options


if __name__ == "__main__":
    main()
