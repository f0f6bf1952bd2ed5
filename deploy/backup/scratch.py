"""Makes temporary folders whose content does not outlive a killed backup: it holds users' texts."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "evascore-backup-"
# Between making its folder and locking it, a backup must not lose it to another one.
_UNLOCKED_S = 60.0


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder where TMPDIR says; it is gone afterwards.

    The process holds a lock on it, which ends with the process. `remove_leftovers` deletes folders
    without a lock.
    """
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(descriptor)


def remove_leftovers() -> None:
    """Delete the folders of backups that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # Another backup may end meanwhile, and remove its folder itself.
        with suppress(OSError):
            _remove_unless_used(folder)


def _remove_unless_used(folder: Path) -> None:
    found = folder.stat(follow_symlinks=False)
    is_new = time.time() - found.st_mtime < _UNLOCKED_S
    if found.st_uid != os.geteuid() or is_new:
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(descriptor)
