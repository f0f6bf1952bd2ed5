"""`make chaos SECONDS=n SEED=s`: clients and faults together; exits with 1 if a promise broke."""

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import orjson

from tests.faults.chaos.history import History
from tests.faults.chaos.plan import Plan
from tests.faults.chaos.run import run

_PROGRESS_EVERY_S = 10


def main() -> int:
    """Run chaos and print its report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--max-lines", type=int, default=120, help="of one uploaded batch")
    parser.add_argument("--keep", type=Path, help="folder that keeps logs and data")
    options = parser.parse_args()
    plan = Plan(
        seconds=options.seconds,
        seed=options.seed,
        num_clients=options.clients,
        max_lines=options.max_lines,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        history, is_over = History(), threading.Event()
        progress = threading.Thread(target=_show_progress, args=(history, is_over))
        progress.start()
        try:
            report = run(plan, folder, history)
        finally:
            is_over.set()
            progress.join()
    print(orjson.dumps(report, default=tuple, option=orjson.OPT_INDENT_2).decode())
    return 0 if report.is_well else 1


def _show_progress(history: History, is_over: threading.Event) -> None:
    began_at, num_shown = time.monotonic(), 0
    while not is_over.wait(_PROGRESS_EVERY_S):
        entries = list(history.entries.values())
        num_lines = sum(len(each.requests) for each in entries if each.kind == "batch")
        print(
            f"{time.monotonic() - began_at:.0f} s: {len(history.periods):,} faults,"
            f" {len(entries):,} jobs and batches, {num_lines:,} lines of batches,"
            f" {len(history.violations)} promises broken",
            file=sys.stderr,
        )
        for violation in history.violations[num_shown:]:
            print(violation, file=sys.stderr)
            num_shown += 1


if __name__ == "__main__":
    sys.exit(main())
