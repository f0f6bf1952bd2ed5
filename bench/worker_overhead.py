"""CPU time per text that the worker spends besides the model, under load.

A backlog of short texts is put into Redis while the worker is stopped; the worker's CPU time from
there to the end of the last one is compared with that of the bare scorer on the same texts in
batches of the same size. Both run in turns; the median of the differences counts.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

from bench.results import write_results
from contract import keys
from contract.job_store import JobStore
from contract.messages import Job
from contract.settings import REPOSITORY, load_settings
from tests.service import TINY_CHECKPOINT, Service

TEXT = "A short text."
# The bare scorer in a process like the worker's: reads rounds from stdin, tells its CPU seconds.
SCORER = """
import sys, time
from model.request import ScoreRequest
from model.scorer import Scorer
model, text, num_texts, batch_texts = sys.argv[1], sys.argv[2].encode(), *map(int, sys.argv[3:])
scorer = Scorer.load(model)
scorer.warm_up()
for _ in sys.stdin:
    began = time.process_time()
    for at in range(0, num_texts, batch_texts):
        scorer.score([ScoreRequest(text=text)] * min(batch_texts, num_texts - at))
    print(time.process_time() - began, flush=True)
"""


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, default=TINY_CHECKPOINT)
    options = parser.parse_args()
    batch_texts = load_settings({}).batch_texts
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder), options.model).start()
        scorer = _start_scorer(options.model, options.texts, batch_texts)
        try:
            _worker_cpu_s(service, options.texts)
            _scorer_cpu_s(scorer)
            rounds = [
                (_worker_cpu_s(service, options.texts), _scorer_cpu_s(scorer))
                for _ in range(options.rounds)
            ]
        finally:
            scorer.kill()
            scorer.communicate()
            service.stop()
    figures = {
        "overhead_us_per_text": _us(median(w - s for w, s in rounds), options.texts),
        "overhead_of_each_round_us": [_us(w - s, options.texts) for w, s in rounds],
        "worker_us_per_text": _us(median(w for w, _ in rounds), options.texts),
        "model_us_per_text": _us(median(s for _, s in rounds), options.texts),
    }
    setup = {
        "texts": options.texts,
        "text_bytes": len(TEXT),
        "batch_texts": batch_texts,
        "rounds": options.rounds,
        "model": options.model.name,
    }
    write_results("worker_overhead", figures, setup)


def _worker_cpu_s(service: Service, num_texts: int) -> float:
    """CPU seconds of the worker for a backlog of `num_texts` jobs."""
    worker = service.part("worker")
    worker.suspend()
    with service.redis() as client:
        port = client.connection_pool.connection_kwargs["port"]
        settings = load_settings({"EVASCORE_REDIS_URL": f"redis://127.0.0.1:{port}/0"})
        store = JobStore(client, settings)
        now = time.time()
        job = Job([{"text": TEXT}], len(TEXT), submitted_at=now, deadline_at=now + 3600)
        for _ in range(num_texts):
            store.submit(job)
        began = _cpu_s(worker)
        worker.resume()
        while client.hlen(keys.LIVE_JOBS):
            time.sleep(0.01)
        return _cpu_s(worker) - began


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _start_scorer(model: Path, num_texts: int, batch_texts: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *("env", "OMP_WAIT_POLICY=passive", sys.executable, "-c", SCORER),
            *(str(model), TEXT, str(num_texts), str(batch_texts)),
        ],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _scorer_cpu_s(scorer: subprocess.Popen[str]) -> float:
    assert scorer.stdin is not None
    assert scorer.stdout is not None
    scorer.stdin.write("go\n")
    scorer.stdin.flush()
    return float(scorer.stdout.readline())


def _us(seconds: float, num_texts: int) -> float:
    return round(seconds / num_texts * 1e6, 1)


if __name__ == "__main__":
    main()
