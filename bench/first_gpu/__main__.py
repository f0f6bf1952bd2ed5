"""Measures everything about a GPU machine, each step in a process with a time limit.

Each figure is a line of JSON in FOLDER/first_gpu.jsonl, on disk before the next is measured. The
run ends with a table. `--cpu-rehearsal` runs all steps with tiny sizes on a CPU.
"""

import argparse
import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.first_gpu.plan import Group
    from bench.first_gpu.processes import Starter
    from bench.first_gpu.run import Run

# Seconds in which no step can do anything.
SHORTEST_STEP_S = 8


def main() -> int:
    """Run the steps of the command line; return 1 if anything failed, 2 without a GPU, else 0."""
    began_s = time.time()
    options = _options()
    _prepare_environment()
    # After the environment is prepared: torch reads it.
    import torch

    from bench.first_gpu.processes import Starter
    from bench.first_gpu.run import Run
    from bench.first_gpu.sizes import REAL, TINY
    from bench.first_gpu.table import has_failed, table
    from bench.results import circumstances

    if not options.cpu_rehearsal and not torch.cuda.is_available():
        print("bench.first_gpu: no CUDA device found; --cpu-rehearsal needs none", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    run = Run(
        folder=options.out.absolute(),
        sizes=TINY if options.cpu_rehearsal else REAL,
        device="cpu" if options.cpu_rehearsal else "cuda",
        backend="torch" if options.cpu_rehearsal else "triton",
        began_s=began_s,
        deadline_s=began_s + options.budget_s,
    )
    if options.cpu_rehearsal:
        torch.set_num_threads(1)
    num_lines_before = len(run.figures.lines())
    run.put("imported", seconds=round(time.time() - began_s, 1), **circumstances())
    _import_project(run)
    signal.signal(signal.SIGTERM, _end)
    try:
        _run_steps(run, options.steps, Starter())
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C; all figures are kept.", flush=True)
    finally:
        lines = run.figures.lines()
        (run.folder / "table.txt").write_text(table(lines) + "\n")
        print("\n" + table(lines, is_short=True), flush=True)
        print(f"\nended after {time.time() - began_s:.0f} s; see {run.folder}", flush=True)
    return int(any(map(has_failed, lines[num_lines_before:])))


def _run_steps(run: "Run", steps: Sequence[str], starter: "Starter") -> None:
    from bench.first_gpu.plan import STEPS

    groups = [(step, group) for step in steps for group in STEPS[step]]
    for number, (step, group) in enumerate(groups, 1):
        run.step = step
        if run.left_s() < SHORTEST_STEP_S:
            run.put(f"step {step}: left out", left_s=round(run.left_s(), 1))
            continue
        try:
            _run_group(run, group, [later for _, later in groups[number:]], starter)
        except Exception as error:  # noqa: BLE001 - such as no memory for a process; later there is
            run.put(f"step {step}: FAILED", error=f"{type(error).__name__}: {str(error)[:500]}")
            traceback.print_exc()


def _run_group(run: "Run", group: "Group", later: Sequence["Group"], starter: "Starter") -> None:
    """Run a group; without its figure, run it again and all later ones without descriptors."""
    num_lines_before = len(run.figures.lines())
    starter.run_group(run, group, later)
    if group.figure is None or not run.by_descriptor:
        return
    if group.figure not in [line["what"] for line in run.figures.lines()[num_lines_before:]]:
        run.by_descriptor = False
        run.put(f"{group.figure} by descriptor: FAILED; from now on all products are plain")
        starter.run_group(run, group, later)


def _options() -> argparse.Namespace:
    from bench.first_gpu.plan import DEFAULT_STEPS, STEPS

    parser = argparse.ArgumentParser(prog="python -m bench.first_gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("first_gpu.out"), metavar="FOLDER")
    parser.add_argument("--budget-s", type=float, default=440, help="seconds for all steps")
    parser.add_argument(
        "--steps", nargs="+", choices=list(STEPS), default=list(DEFAULT_STEPS), metavar="STEP"
    )
    parser.add_argument("--cpu-rehearsal", action="store_true", help="tiny sizes, no GPU")
    return parser.parse_args()


def _import_project(run: "Run") -> None:
    """Import the model once for all parts; without it the machine can still be measured."""
    try:
        importlib.import_module("bench.first_gpu.project")
    except Exception as error:  # noqa: BLE001 - a figure says what it was
        message = f"{type(error).__name__}: {str(error)[:500]}"
        run.put("import of the project: FAILED", error=message)
        traceback.print_exc()


def _prepare_environment() -> None:
    """Set what libraries read when they are imported, unless the caller has set it."""
    for name, value in {
        # Kernels are compiled once for all steps, and never taken from an earlier run.
        "TRITON_CACHE_DIR": tempfile.mkdtemp(prefix="triton-"),
        # So a forked process can still start CUDA.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        # As in the image of the worker.
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)


def _end(number: int, frame: FrameType | None) -> None:
    """End this process so that the parts are ended too, and the table is written."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
