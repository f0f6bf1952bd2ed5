"""Runs evascore as `make run` does, with a worker whose model costs nothing."""

import sys

from deploy import run

_worker_command = run.worker_command


def _costless_worker_command() -> list[str]:
    replacements = {"worker.main": "bench.peers.costless_worker"}
    return [replacements.get(word, word) for word in _worker_command()]


if __name__ == "__main__":
    run.worker_command = _costless_worker_command
    sys.exit(run.main())
