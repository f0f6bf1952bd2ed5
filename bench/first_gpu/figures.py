"""Writes each figure of a run to disk, as a line of JSON, before the next is measured."""

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_PRINTED_CHARS = 600


@dataclass(frozen=True)
class Figures:
    """The figures in a file of lines of JSON, which several processes append to."""

    path: Path
    began_s: float  # of the run, by time.time()

    def put(self, step: str, what: str, **figures: Any) -> None:
        """Write and print one line of figures about `what`."""
        at_s = round(time.time() - self.began_s, 1)
        line = json.dumps({"step": step, "what": what, "at_s": at_s, **figures}, default=str)
        with self.path.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(line[:MAX_PRINTED_CHARS], flush=True)

    def lines(self) -> list[dict[str, Any]]:
        """Return all figures so far, in the order in which they came.

        A line that was cut off, by a full disk or a process that was killed, is left out.
        """
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    def latest(self, what: str, name: str) -> Any:
        """Return the newest figure `name` of `what`; None if there is none."""
        found = [line[name] for line in self.lines() if line["what"] == what and name in line]
        return found[-1] if found else None
