"""Measures how long one short text takes on an idle service beyond its forward pass, by stage.

The client's clock covers the whole request, and the service's own times come with the result. Web
server, worker and client share the clock of one machine, so the times can be compared.

The floor is what the parts of a request take alone: `/healthz`, which needs no Redis, a PING, and a
write that Redis syncs to disk. A text needs four such writes in a row, see STAGES.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.results import Results
from contract.settings import DEMO_CHECKPOINT
from tests.service import Service

TEXT = "The quick brown fox jumps over the lazy dog."
WARM_UP = 20
# A pause between requests, as on an idle service; longer than a bulk worker's look at its queue.
PAUSE_S = 0.05
STAGES = {
    "accept": "until the web server has read the request",
    "queue": "until the worker has the text, which is stored, fetched and opened: three writes",
    "batch_wait": "until its micro-batch begins",
    "compute": "of the micro-batch in the model",
    "finish": "until its record is made",
    "answer": "until the client has its answer; includes storing the record: one write",
    "beyond_compute": "all but the model",
    "wall": "as the client sees it",
}
FLOOR = ("healthz", "redis_ping", "redis_write")


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--model", type=Path, default=Path(DEMO_CHECKPOINT))
    options = parser.parse_args()
    setup = {"requests": options.requests, "text_bytes": len(TEXT), "model": options.model.name}
    with Results("latency", setup) as results, tempfile.TemporaryDirectory() as folder:
        results.step("start the service")
        service = Service(Path(folder), options.model).start()
        try:
            results.step(f"send {options.requests} requests")
            times = _measure(service, options.requests + WARM_UP)[WARM_UP:]
            results.step("measure the floor")
            floor = _floor(service, options.requests)
        finally:
            service.stop()
        figures = {f"{stage}_p50_ms": _round(median(t[stage] for t in times)) for stage in STAGES}
        for stage in ("beyond_compute", "wall"):
            figures[f"{stage}_p95_ms"] = _round(quantiles((t[stage] for t in times), n=20)[-1])
        figures |= {f"floor_{name}_p50_ms": _round(floor[name]) for name in FLOOR}
        results.put(figures, is_printed=False)


def _measure(service: Service, num_requests: int) -> list[dict[str, float]]:
    with service.client() as client:
        return [_once(client) for _ in range(num_requests)]


def _once(client: Any) -> dict[str, float]:
    """Milliseconds by stage of one request."""
    time.sleep(PAUSE_S)
    began_at, began = time.time(), time.perf_counter()
    response = client.post("/score", json={"text": TEXT}, headers={"Prefer": "wait=10"})
    wall_ms = (time.perf_counter() - began) * 1000
    response.raise_for_status()
    return by_stage(response.json(), began_at, wall_ms)


def by_stage(answer: Mapping[str, Any], began_at: float, wall_ms: float) -> dict[str, float]:
    """Milliseconds by stage; all but the last two add up to the last.

    Args:
        answer: the JSON of a scored job. It tells its times in whole milliseconds.
        began_at: Unix time at which the request was sent, seconds.
        wall_ms: from the request to the answer.
    """
    timings_ms = answer["result"]["timings_ms"]
    inside = {stage: timings_ms[stage] for stage in ("queue", "batch_wait", "compute")}
    accept_ms = (datetime.fromisoformat(answer["submitted_at"]).timestamp() - began_at) * 1000
    return {
        "accept": accept_ms,
        **inside,
        "finish": timings_ms["total"] - sum(inside.values()),
        "answer": wall_ms - timings_ms["total"] - accept_ms,
        "beyond_compute": wall_ms - timings_ms["compute"],
        "wall": wall_ms,
    }


def _floor(service: Service, count: int) -> dict[str, float]:
    """Median milliseconds of what a request is made of, each alone on an idle service."""
    with service.client() as client, service.redis() as redis_client:
        asked: dict[str, Callable[[], Any]] = {
            "healthz": lambda: client.get("/healthz"),
            "redis_ping": redis_client.ping,
            "redis_write": lambda: redis_client.set("of-a-benchmark", "x"),
        }
        return {name: median(_timed(ask) for _ in range(count)) for name, ask in asked.items()}


def _timed(ask: Callable[[], Any]) -> float:
    time.sleep(PAUSE_S)
    began = time.perf_counter()
    ask()
    return (time.perf_counter() - began) * 1000


def _round(value: float) -> float:
    return round(value, 2)


if __name__ == "__main__":
    main()
