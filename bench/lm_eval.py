"""Compares how long lm-eval takes with its stock client and with `evascore.lm_eval`.

In one run the same service scores the same requests for both, one after the other. lm-eval has a
virtual environment of its own, which `make test-lm-eval` sets up. `bench.lm_eval_timing` runs in
it.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from bench.results import write_results
from contract.settings import DEMO_CHECKPOINT, REPOSITORY
from tests.service import Service

PYTHON = REPOSITORY / ".venv-lm-eval" / "bin" / "python"
NUM_QUESTIONS, NUM_CHOICES, CONTEXT_BYTES, NUM_TEXTS, TEXT_BYTES = 100, 4, 400, 40, 1000


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, default=Path(DEMO_CHECKPOINT))
    options = parser.parse_args()
    setup = {
        "questions": NUM_QUESTIONS,
        "choices": NUM_CHOICES,
        "context_bytes": CONTEXT_BYTES,
        "texts": NUM_TEXTS,
        "text_bytes": TEXT_BYTES,
        "rounds": options.rounds,
        "model": options.model.name,
    }
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder), options.model).start()
        try:
            rounds = _measure(service.url, setup)
        finally:
            service.stop()
    seconds = {name: round(median(each[name] for each in rounds), 2) for name in rounds[0]}
    ratios = {
        f"{name.removesuffix('_s')}_over_evascore": round(seconds[name] / seconds[ours], 1)
        for name in seconds
        for ours in [f"{name.partition('_')[0]}_evascore_s"]
        if name != ours
    }
    write_results("lm_eval", {**seconds, **ratios}, setup)


def _measure(url: str, setup: dict[str, Any]) -> list[dict[str, float]]:
    run = subprocess.run(
        [PYTHON, "-m", "bench.lm_eval_timing", url],
        cwd=REPOSITORY,
        input=json.dumps(setup),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in run.stdout.splitlines()]


if __name__ == "__main__":
    main()
