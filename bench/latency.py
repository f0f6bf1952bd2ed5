"""Measures how long one short text takes on an idle service beyond its forward pass, by stage.

The client's clock covers the whole request. The service's own times come with the result. The
rest is HTTP: the connection, parsing, admission, the wake-up of the waiting request, and the
answer.
"""

import argparse
import tempfile
import time
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
STAGES = ("http", "queue", "batch_wait", "compute", "finish", "beyond_compute", "wall")


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
        finally:
            service.stop()
        figures = {f"{stage}_p50_ms": _round(median(t[stage] for t in times)) for stage in STAGES}
        for stage in ("beyond_compute", "wall"):
            figures[f"{stage}_p95_ms"] = _round(quantiles((t[stage] for t in times), n=20)[-1])
        results.put(figures, is_printed=False)


def _measure(service: Service, num_requests: int) -> list[dict[str, float]]:
    with service.client() as client:
        return [_once(client) for _ in range(num_requests)]


def _once(client: Any) -> dict[str, float]:
    """Milliseconds by stage of one request."""
    time.sleep(PAUSE_S)
    began = time.perf_counter()
    response = client.post("/score", json={"text": TEXT}, headers={"Prefer": "wait=10"})
    wall = (time.perf_counter() - began) * 1000
    response.raise_for_status()
    timings_ms = response.json()["result"]["timings_ms"]
    inside = {stage: timings_ms[stage] for stage in ("queue", "batch_wait", "compute")}
    return {
        **inside,
        "finish": timings_ms["total"] - sum(inside.values()),
        "http": wall - timings_ms["total"],
        "beyond_compute": wall - timings_ms["compute"],
        "wall": wall,
    }


def _round(value: float) -> float:
    return round(value, 2)


if __name__ == "__main__":
    main()
