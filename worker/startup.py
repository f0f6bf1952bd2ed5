"""How long each phase of a worker's start takes, and which one runs."""

import os
import sys
import time
from pathlib import Path
from typing import Any

PROCESS = Path("/proc/self/stat")


class Startup:
    """The phases of one start; each begins where the one before ends, so that they add up to it."""

    def __init__(self, phase: str, *, began_at: float) -> None:
        """`phase` has run since `began_at`, in seconds of `time.monotonic`."""
        self._phase: str | None = phase
        self._began_at = began_at
        self._seconds: dict[str, float] = {}

    def enter(self, phase: str | None) -> None:
        """End the phase that runs; begin `phase`, unless the start is over."""
        now = time.monotonic()
        if self._phase is not None:
            self.credit(self._phase, now - self._began_at)
        self._phase, self._began_at = phase, now

    def credit(self, phase: str, elapsed_s: float) -> None:
        """Count the last `elapsed_s` as time of `phase`, not of the phase that runs."""
        if self._phase is None:
            return
        self._began_at += elapsed_s
        # Replaced, not changed: the lease's thread may be writing the old one.
        self._seconds = {**self._seconds, phase: self._seconds.get(phase, 0.0) + elapsed_s}

    def as_json(self) -> dict[str, Any]:
        """The phase that runs, null once the worker is ready; seconds of those that have ended."""
        seconds = {phase: round(elapsed_s, 3) for phase, elapsed_s in self._seconds.items()}
        return {"phase": self._phase, "seconds": seconds}


def process_age_s(stat: Path = PROCESS) -> float:
    """Seconds since this process was started, its imports among them; 0 unless on Linux.

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
