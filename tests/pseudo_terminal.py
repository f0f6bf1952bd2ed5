"""Runs a command at a real pseudo-terminal and keeps what it writes there."""

import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from contract.settings import REPOSITORY
from tests.conftest import HANG_S


class PseudoTerminal:
    """A command at a terminal of its own; `text` is what it has written so far."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], cwd: Path = REPOSITORY
    ) -> None:
        self._ours, theirs = pty.openpty()
        # A wide terminal, so that no line is cut.
        termios.tcsetwinsize(theirs, (50, 200))
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environment),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._written = b""

    @property
    def text(self) -> str:
        """All that was written, with its control sequences."""
        return self._written.decode()

    def read_until(self, words: str, timeout_s: float = HANG_S) -> None:
        """Wait until the command has written `words`."""
        deadline = time.monotonic() + timeout_s
        while words not in self.text:
            assert time.monotonic() < deadline, self.text
            assert self._read(), self.text

    def read_to_end(self, timeout_s: float = HANG_S) -> int:
        """Wait until the command has ended; return its exit code."""
        deadline = time.monotonic() + timeout_s
        while self._read():
            assert time.monotonic() < deadline, self.text
        return self.process.wait(timeout_s)

    def close(self) -> None:
        """End the command, if it runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)

    def _read(self) -> bool:
        """Read what has arrived; False once nobody writes any more."""
        readable, _, _ = select.select([self._ours], [], [], 1)
        if not readable:
            return True
        try:
            chunk = os.read(self._ours, 65_536)
        except OSError:
            # Linux reports that all writers have closed the terminal.
            return False
        self._written += chunk
        return bool(chunk)
