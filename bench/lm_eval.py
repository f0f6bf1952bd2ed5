"""Compares how long lm-eval takes with its stock client and with `evascore.lm_eval`.

In one run the same service scores the same requests for both, one after the other. lm-eval has a
virtual environment of its own, which `make test-lm-eval` sets up. `bench.lm_eval_timing` runs in
it.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench.results import Results
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
    rounds = []
    with Results("lm_eval", setup) as results, tempfile.TemporaryDirectory() as folder:
        results.step("start the service")
        service = Service(Path(folder), options.model).start()
        try:
            for seconds in _measure(service.url, setup):
                rounds.append(seconds)
                results.step(f"round {len(rounds)} of {options.rounds} is over")
                results.put(_figures(rounds))
        finally:
            service.stop()


def _figures(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return median seconds, and how many times those of evascore's client the others are."""
    seconds = {name: round(median(each[name] for each in rounds), 2) for name in rounds[0]}
    ratios = {
        f"{name.removesuffix('_s')}_over_evascore": round(seconds[name] / seconds[ours], 1)
        for name in seconds
        for ours in [f"{name.partition('_')[0]}_evascore_s"]
        if name != ours
    }
    return {**seconds, **ratios}


def _measure(url: str, setup: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Yield the seconds of each round as soon as it is over."""
    command = [str(PYTHON), "-m", "bench.lm_eval_timing", url]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as timing:
        assert timing.stdin is not None
        assert timing.stdout is not None
        with timing.stdin as given:
            json.dump(setup, given)
        for line in timing.stdout:
            yield json.loads(line)
    if timing.returncode:
        raise subprocess.CalledProcessError(timing.returncode, command)


if __name__ == "__main__":
    main()
