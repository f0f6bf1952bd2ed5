"""Marks on the local disk whether the worker is scoring, so that its successor knows how it ended.

Redis holds the suspects of a micro-batch, but a worker that loses Redis cannot take them back. If
it is killed then, it was not scoring, and only this file tells. A worker that fetches a job counts
as scoring, since the fetch may note it as a suspect.
"""

import os
from pathlib import Path

from contract.logs import get_logger

log = get_logger(__name__)

_IDLE, _SCORING = b"0", b"1"


class ScoringMark:
    """One byte in a file of the worker's name; without a writable folder there is no mark."""

    def __init__(self, folder: Path, worker: str) -> None:
        """Read what the last worker of this name left in `folder`."""
        self.was_left_idle = False
        """Whether the last worker of this name ended while it was not scoring."""
        self._file: int | None = None
        self._written = b""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / worker, os.O_RDWR | os.O_CREAT, 0o600)
            self.was_left_idle = os.pread(self._file, 1, 0) == _IDLE
        except OSError as error:
            log.warning("scoring_not_marked", error=type(error).__name__)

    def begin(self) -> None:
        """Mark that scoring begins."""
        self._write(_SCORING)

    def end(self) -> None:
        """Mark that scoring ended, with or without an error."""
        self._write(_IDLE)

    def _write(self, mark: bytes) -> None:
        if self._file is None or mark == self._written:
            return
        try:
            os.pwrite(self._file, mark, 0)
            self._written = mark
        except OSError:
            # A mark that is not true is worse than none.
            os.close(self._file)
            self._file = None
