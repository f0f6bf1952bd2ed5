"""Tells whether an output would replace the input that it is made from."""

import os
import sys
from pathlib import Path

from evascore.readers.inputs import STDIN


def holds_input(target: Path, source: Path) -> bool:
    """Whether writing `target`, a file or a folder, would replace `source`, by whatever name.

    Raises:
        OSError: `source` cannot be found.
    """
    # A terminal or /dev/null may be both.
    if not (target.is_file() or target.is_dir()):
        return False
    replaced = target.stat()
    return any(os.path.samestat(replaced, read) for read in _read_from(source))


def _read_from(source: Path) -> list[os.stat_result]:
    """The input and the folders that it is in."""
    if source == STDIN:
        try:
            return [os.fstat(sys.stdin.fileno())]
        except (OSError, ValueError, AttributeError):
            # It is closed, or no file.
            return []
    # A pipe at /dev/fd/N, as of a process substitution, cannot be found by its resolved path.
    return [source.stat(), *(folder.stat() for folder in source.resolve().parents)]
