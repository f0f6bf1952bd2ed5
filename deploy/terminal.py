"""Writes for a person at a terminal: lines in colour, ticks, and one line that changes."""

import os
import shutil
from contextlib import suppress
from typing import Any, TextIO

import click

# Moves to the start of the line and erases it.
_REWRITE = "\r\033[2K"


class Terminal:
    """Writes lines to a stream, and keeps at most one line at the end that is rewritten."""

    def __init__(self, stream: TextIO) -> None:
        """Use colours and rewriting as far as `stream` and the variables of the user allow.

        Sources: https://no-color.org; `TERM=dumb` names a terminal without control sequences.
        """
        self._stream = stream
        self._can_rewrite = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._has_colour = self._can_rewrite and not os.environ.get("NO_COLOR")
        self._is_utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
        self._status = ""

    def line(self, text: str = "") -> None:
        """Write a line for good, above the line that changes."""
        self._write(f"{self._erased()}{text}\n{self._status}")

    def status(self, text: str) -> None:
        """Change the last line; nothing is written where lines cannot be rewritten."""
        if not self._can_rewrite:
            return
        erased = self._erased()
        # A longer line would wrap, and only its last row would be erased.
        self._status = text[: shutil.get_terminal_size().columns - 1]
        self._write(erased + self._status)

    def done(self, name: str, detail: str) -> None:
        """Write the line of a step that is done."""
        tick = click.style("✓" if self._is_utf8 else "ok", fg="green", bold=True)
        self.line(
            f"  {tick} {name:<7} {click.style(detail, dim=True)}" if detail else f"  {tick} {name}"
        )

    def _erased(self) -> str:
        return _REWRITE if self._status else ""

    def _write(self, text: str) -> None:
        shown = text if self._has_colour else _without_colours(text)
        encoding = self._stream.encoding or "ascii"
        # A terminal that was closed ends the run by SIGHUP, not by a failed write.
        with suppress(OSError):
            self._stream.write(shown.encode(encoding, "replace").decode(encoding))
            self._stream.flush()


def _without_colours(text: str) -> str:
    """`text` without colours; what erases a line stays."""
    return _REWRITE.join(map(click.unstyle, text.split(_REWRITE)))


def styled(text: str, **style: Any) -> str:
    """`text` in a colour or weight, as `click.style` names them."""
    return click.style(text, **style)
