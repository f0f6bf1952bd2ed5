"""`make chaos SECONDS=n SEED=s`: clients and faults together; exits with 1 if a promise broke."""

import argparse
import sys
import tempfile
from pathlib import Path

import orjson

from tests.faults.chaos.plan import Plan
from tests.faults.chaos.run import run


def main() -> int:
    """Run chaos and print its report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--keep", type=Path, help="folder that keeps logs and data")
    options = parser.parse_args()
    plan = Plan(seconds=options.seconds, seed=options.seed, num_clients=options.clients)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report = run(plan, folder)
    print(orjson.dumps(report, default=tuple, option=orjson.OPT_INDENT_2).decode())
    return 0 if report.is_well else 1


if __name__ == "__main__":
    sys.exit(main())
