"""Bulk: its throughput beside `python -m model score`, and what an upload costs web and Redis.

The throughput is from the begin of the upload until the last result is read, the command's from its
start, with the start and the loading of the model taken off by timing it on one text. Both are run
in turns. The upload is measured without a worker, so that all of it lies in Redis at its end.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import orjson
import psutil
import redis

from bench.results import write_results
from contract.settings import DEMO_CHECKPOINT, REPOSITORY
from tests.conftest import RedisServer
from tests.service import Service
from tests.web import WebServer

PROSE = REPOSITORY / "LICENSE"
MIN_TEXT_BYTES, MAX_TEXT_BYTES = 20, 200
NDJSON = {"Content-Type": "application/x-ndjson"}
PAGE_LINES = 10_000
START_S = 300.0
WARM_UP_TEXTS = 500
SAMPLE_S = 0.05
PIECE_LINES = 1000


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--upload-mb", type=int, default=200)
    parser.add_argument("--model", type=Path, default=Path(DEMO_CHECKPOINT))
    options = parser.parse_args()
    figures = {
        **(_throughput(options.model, options.texts, options.pairs) if options.pairs else {}),
        **_upload(options.upload_mb * 1_000_000),
    }
    setup = {
        "texts": options.texts,
        "text_bytes": f"{MIN_TEXT_BYTES} to {MAX_TEXT_BYTES}, uniform, English prose",
        "pairs": options.pairs,
        "upload_mb": options.upload_mb,
        "model": options.model.name,
    }
    write_results("bulk", figures, setup)


def _throughput(model: Path, num_texts: int, num_pairs: int) -> dict[str, Any]:
    """Texts per second through bulk and through the command, in turns."""
    body = b"".join(_lines(num_texts))
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder), model).start(timeout_s=START_S)
        try:
            with service.client(timeout_s=600) as client:
                _score(client, b"".join(_lines(WARM_UP_TEXTS)))
                pairs = [_pair(service, client, body) for _ in range(num_pairs)]
        finally:
            service.stop()
    return {
        **{name: round(median(pair[name] for pair in pairs), 3) for name in pairs[0]},
        "ratio_of_each_pair": [round(pair["bulk_to_command_ratio"], 3) for pair in pairs],
    }


def _pair(service: Service, client: httpx.Client, body: bytes) -> dict[str, float]:
    """One run of each, one after the other."""
    began = time.perf_counter()
    num_texts = _score(client, body)
    bulk_s = time.perf_counter() - began
    start_s = _through_command(service.model, body[: body.index(b"\n") + 1])
    command_s = _through_command(service.model, body) - start_s
    return {
        "bulk_texts_per_s": num_texts / bulk_s,
        "command_texts_per_s": num_texts / command_s,
        "bulk_to_command_ratio": command_s / bulk_s,
    }


def _score(client: httpx.Client, body: bytes) -> int:
    """Upload, read all results as they come, and forget them; the number of results."""
    batch = _post(client, body)
    path, total = batch["links"]["self"], batch["request_counts"]["total"]
    after = 0
    while after < total:
        page = client.get(
            f"{path}/results", params={"after": after, "limit": PAGE_LINES, "wait": 20}
        )
        page.raise_for_status()
        assert page.text.count("\n") == int(page.headers["Next-After"]) - after
        after = int(page.headers["Next-After"])
    client.delete(path).raise_for_status()
    return after


def _through_command(model: Path, body: bytes) -> float:
    """Seconds that `python -m model score` takes for the lines, its start included."""
    began = time.perf_counter()
    subprocess.run(
        [
            *("env", "OMP_WAIT_POLICY=passive", sys.executable),
            *("-m", "model", "score", "--model", str(model)),
        ],
        input=body,
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def _upload(num_bytes: int) -> dict[str, Any]:
    """What an upload of about `num_bytes` costs a web server without workers, and its Redis."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        web = WebServer(Path(folder), server.url).start()
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
    with _Peak(web) as peak:
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
        "web_rss_mb_before": round(peak.first / 1e6, 1),
        "web_rss_mb_at_most": round(peak.most / 1e6, 1),
    }


def _post(http: httpx.Client, content: bytes | Iterator[bytes]) -> dict[str, Any]:
    response = http.post("/batches", content=content, headers=NDJSON, timeout=600)
    response.raise_for_status()
    batch: dict[str, Any] = response.json()
    return batch


class _Peak:
    """Watches the memory of the web server's worker process, in bytes."""

    def __init__(self, web: WebServer) -> None:
        assert web.process is not None
        self._processes = psutil.Process(web.process.pid).children()
        self.first = self.most = self._rss()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "_Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self.most = max(self.most, self._rss())

    def _rss(self) -> int:
        return sum(process.memory_info().rss for process in self._processes)


def _lines(count: int) -> Iterator[bytes]:
    """Pieces of English prose, the same each time."""
    prose, chance = PROSE.read_text(), random.Random(0)
    for number in range(count):
        num_chars = chance.randint(MIN_TEXT_BYTES, MAX_TEXT_BYTES)
        begin = chance.randrange(len(prose) - num_chars)
        line = {"custom_id": str(number), "text": prose[begin : begin + num_chars]}
        yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _pieces(num_bytes: int) -> Iterator[bytes]:
    """The same lines over and over, about `num_bytes` of them."""
    piece = b"".join(_lines(PIECE_LINES))
    for _ in range(num_bytes // len(piece)):
        yield piece


if __name__ == "__main__":
    main()
