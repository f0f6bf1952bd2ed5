"""Compares texts per second of 16 HTTP clients with `python -m model score` on the same texts.

Both run in turns, so that a change of the machine's speed affects both. The command's start-up
time is measured with one text and subtracted. The service is already running when it is timed.
"""

import argparse
import math
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, median
from typing import Any

import orjson

from bench.results import Results
from contract.settings import DEMO_CHECKPOINT, REPOSITORY
from tests.service import Service

PROSE = REPOSITORY / "LICENSE"
MIN_TEXT_BYTES, MAX_TEXT_BYTES = 200, 2000
WARM_UP_TEXTS = 32


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=320)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--model", type=Path, default=Path(DEMO_CHECKPOINT))
    parser.add_argument(
        "--limit-s", type=float, default=math.inf, help="stop after so many seconds"
    )
    options = parser.parse_args()
    requests = _make_requests(options.texts)
    sizes = [len(request["text"]) for request in requests]
    setup = {
        "texts": options.texts,
        "text_bytes_min_mean_max": [min(sizes), round(mean(sizes)), max(sizes)],
        "clients": options.clients,
        "pairs": options.pairs,
        "model": options.model.name,
    }
    with (
        Results("throughput", setup, limit_s=options.limit_s) as results,
        tempfile.TemporaryDirectory() as folder,
    ):
        results.step("start the service")
        service = Service(Path(folder), options.model).start()
        pairs = []
        try:
            _through_http(service, requests[:WARM_UP_TEXTS], options.clients)
            for number in range(options.pairs):
                results.step(f"pair {number + 1} of {options.pairs}")
                pairs.append(_pair(service, requests, options.clients))
                results.put(_figures(pairs))
        finally:
            service.stop()


def _figures(pairs: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "http_texts_per_s": _median(pairs, "http_texts_per_s"),
        "command_texts_per_s": _median(pairs, "command_texts_per_s"),
        "http_to_command_ratio": _median(pairs, "ratio", digits=3),
        "ratio_of_each_pair": [round(pair["ratio"], 3) for pair in pairs],
        "mean_batch_texts": _median(pairs, "mean_batch_texts"),
    }


def _pair(service: Service, requests: list[dict[str, Any]], clients: int) -> dict[str, float]:
    """One run of each, one after the other."""
    http_s, batches = _through_http(service, requests, clients)
    start_s = _through_command(service.model, requests[:1])
    command_s = _through_command(service.model, requests) - start_s
    return {
        "http_texts_per_s": len(requests) / http_s,
        "command_texts_per_s": len(requests) / command_s,
        "ratio": command_s / http_s,
        # Each text of a batch of n reports n, so the mean of 1/n is the number of batches per text.
        "mean_batch_texts": 1 / mean(1 / texts for texts in batches),
    }


def _through_http(
    service: Service, requests: list[dict[str, Any]], num_clients: int
) -> tuple[float, list[int]]:
    """Seconds for all requests, each client with one at a time, and each one's batch size."""
    with service.client() as client, ThreadPoolExecutor(num_clients) as pool:

        def score(request: dict[str, Any]) -> int:
            response = client.post("/score", json=request, headers={"Prefer": "wait=30"})
            response.raise_for_status()
            return int(response.json()["result"]["batch"]["texts"])

        began = time.perf_counter()
        batches = list(pool.map(score, requests))
        return time.perf_counter() - began, batches


def _through_command(model: Path, requests: list[dict[str, Any]]) -> float:
    """Seconds that `python -m model score` takes for the requests, its start included."""
    began = time.perf_counter()
    subprocess.run(
        # As the worker runs: waiting threads that spin would be worth measuring only on idle cores.
        [
            *("env", "OMP_WAIT_POLICY=passive", sys.executable),
            *("-m", "model", "score", "--model", str(model)),
        ],
        input=b"\n".join(map(orjson.dumps, requests)),
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def _make_requests(count: int) -> list[dict[str, Any]]:
    """Pieces of English prose of mixed sizes, the same each time."""
    prose, generator = PROSE.read_text(), random.Random(0)
    requests = []
    for _ in range(count):
        num_chars = generator.randint(MIN_TEXT_BYTES, MAX_TEXT_BYTES)
        begin = generator.randrange(len(prose) - num_chars)
        requests.append({"text": prose[begin : begin + num_chars]})
    return requests


def _median(pairs: list[dict[str, float]], name: str, digits: int = 1) -> float:
    return round(median(pair[name] for pair in pairs), digits)


if __name__ == "__main__":
    main()
