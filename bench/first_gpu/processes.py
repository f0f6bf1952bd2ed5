"""Runs parts of a step in processes of their own, and ends those that exceed their time limit."""

import atexit
import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import FrameType

import torch

from bench.first_gpu.plan import GRACE_S, Group, Part, granted_s
from bench.first_gpu.run import OutOfTime, Run

# A rehearsal may run on a busy machine.
REHEARSAL_PATIENCE = 5
# A part that is asked to end stops what it started.
STOP_S = 10.0
# A process that waits for the GPU's driver ends, though it was killed, only when that answers.
KILL_S = 5.0
POLL_S = 0.05
# The exit status of a part that cannot start CUDA in a forked process.
CANNOT_FORK = 99
# Parts that run side by side share the cores.
SHARED_THREADS = 2


class Starter:
    """Starts parts by fork, which imports nothing again, or by spawn where CUDA needs that."""

    def __init__(self) -> None:
        self._context: BaseContext = multiprocessing.get_context("fork")

    def run_group(self, run: Run, group: Group, later: Sequence[Group] = ()) -> None:
        """Run the parts of a group side by side until they end or their time is over.

        Some time is kept for the groups that come `later`.
        """
        outcomes = self._run_parts(run, group, group.parts, later)
        again = [part for part in group.parts if outcomes.get(part.name) == CANNOT_FORK]
        if again and self._context.get_start_method() == "fork":
            self._context = multiprocessing.get_context("spawn")
            self._run_parts(run, group, again, later)

    def _run_parts(
        self, run: Run, group: Group, parts: Sequence[Part], later: Sequence[Group]
    ) -> dict[str, int]:
        patience = 1 if run.is_on_gpu else REHEARSAL_PATIENCE
        now_s = time.time()
        left_s = run.deadline_s - now_s
        deadline_s = now_s + granted_s(group, later, left_s, patience=patience)
        running: dict[str, tuple[BaseProcess, float]] = {}
        outcomes: dict[str, int] = {}
        try:
            for part in parts:
                own = replace(run, deadline_s=deadline_s, step=part.name)
                process = self._context.Process(  # type: ignore[attr-defined]
                    target=run_part, args=(own, part, len(group.parts))
                )
                process.start()
                running[part.name] = (process, time.time())
            while running and time.time() < deadline_s + GRACE_S:
                for name, status, seconds in _ended(running):
                    outcomes[name] = status
                    run.put(f"part {name} ended", status=status, seconds=seconds)
                time.sleep(POLL_S)
        finally:
            _end_all(run, running)
        return outcomes


def run_part(run: Run, part: Part, num_beside: int) -> None:
    """Run one part in this process, which ends with status 0, 1 or `CANNOT_FORK`."""
    os.setpgid(0, 0)  # what it starts is ended with it
    signal.signal(signal.SIGTERM, _stop)
    status = 1
    try:
        if run.is_on_gpu and part.uses_device and not _can_start_cuda(run):
            status = CANNOT_FORK
        else:
            if num_beside > 1 and run.is_on_gpu:
                torch.set_num_threads(SHARED_THREADS)
            if part.uses_device:
                _set_up(run)
            module, _, function = part.function.partition(":")
            steps = importlib.import_module(f"bench.first_gpu.steps.{module}")
            with contextlib.suppress(OutOfTime):
                getattr(steps, function)(run, *part.arguments)
            status = 0
    except BaseException as error:  # noqa: BLE001 - the process ends; the reason is a figure
        run.put("part FAILED", error=f"{type(error).__name__}: {str(error)[:700]}")
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    # No handlers of the process that it was forked from.
    os._exit(status)


def _stop(number: int, frame: FrameType | None) -> None:
    """End a part by an exception, so that it stops what it started."""
    raise SystemExit(128 + number)


def _can_start_cuda(run: Run) -> bool:
    try:
        torch.cuda.init()
        torch.zeros(1, device=run.device)
    except RuntimeError as error:
        run.put("CUDA does not start here", error=str(error)[:300])
        return False
    return True


def _set_up(run: Run) -> None:
    """Set this process up as a worker, so that what it measures is what a worker does."""
    # Where the model cannot be imported, the machine is measured all the same.
    with contextlib.suppress(ImportError):
        project = importlib.import_module("bench.first_gpu.project")
        project.set_up_process(run.device)
        if not run.by_descriptor:
            project.leave_descriptors_out()


def _ended(running: dict[str, tuple[BaseProcess, float]]) -> Iterator[tuple[str, int, float]]:
    """Yield name, status and seconds of each process that has ended, and forget it."""
    for name, (process, began_s) in list(running.items()):
        if process.exitcode is not None:
            del running[name]
            yield name, process.exitcode, round(time.time() - began_s, 1)


def _end_all(run: Run, running: dict[str, tuple[BaseProcess, float]]) -> None:
    """Ask the parts that still run to stop, then kill them and all that they started."""
    for process, _ in running.values():
        process.terminate()
    stop_by_s = time.time() + STOP_S
    for name, (process, began_s) in running.items():
        process.join(max(stop_by_s - time.time(), 0))
        seconds = round(time.time() - began_s, 1)
        run.put(f"part {name} was ended at its time limit", seconds=seconds)
        _kill(process)
    end_by_s = time.time() + KILL_S
    for name, (process, _) in running.items():
        process.join(max(end_by_s - time.time(), 0))
        if process.exitcode is None:
            run.put(f"part {name} FAILED to end when it was killed", pid=process.pid)
            # Python would wait at its end for each process that `multiprocessing` started.
            atexit.register(os._exit, 1)


def _kill(process: BaseProcess) -> None:
    """Kill a process and all that it started."""
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
