"""Measures how long each phase of a worker's start takes, and which phase is running."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from contract.logs import get_logger

log = get_logger(__name__)

PROCESS = Path("/proc/self/stat")


class Startup:
    """The phases of one start; each begins when the one before ends, so they add up."""

    def __init__(self, phase: str, *, began_at: float) -> None:
        """Begin with `phase`, running since `began_at` in seconds of `time.monotonic`."""
        self._phase: str | None = phase
        self._began_at = began_at
        self._seconds: dict[str, float] = {}

    def enter(self, phase: str | None) -> None:
        """End the running phase and begin `phase`; None ends the start."""
        now = time.monotonic()
        if self._phase is not None:
            self.credit(self._phase, now - self._began_at)
        self._phase, self._began_at = phase, now
        if phase is not None:
            log.info("startup_phase", phase=phase)

    def credit(self, phase: str, elapsed_s: float) -> None:
        """Count the last `elapsed_s` as time of `phase`, not of the running phase."""
        if self._phase is None:
            return
        self._began_at += elapsed_s
        # A new dictionary: the lease's thread may be reading the old one.
        self._seconds = {**self._seconds, phase: self._seconds.get(phase, 0.0) + elapsed_s}

    def as_json(self) -> dict[str, Any]:
        """Return the running phase, null once the worker is ready, and seconds of ended phases."""
        seconds = {phase: round(elapsed_s, 3) for phase, elapsed_s in self._seconds.items()}
        return {"phase": self._phase, "seconds": seconds}


def process_age_s(stat: Path = PROCESS) -> float:
    """Return the seconds since this process started, imports included; 0 unless on Linux.

    Source: proc(5), `/proc/PID/stat`: start time in field 22, in clock ticks since boot.
    """
    if sys.platform != "linux":
        return 0.0
    try:
        # The second field is the program's name in parentheses and may hold anything.
        after_name = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    started_s = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
