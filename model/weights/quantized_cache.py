"""Keeps quantized weights on disk, so that the next start need not quantize again.

An entry is a folder in the layout of a checkpoint, with a manifest that lists every file's size
and SHA-256. It is written under another name and renamed when all of it is on disk: whatever ends
the writer, a reader finds a whole entry or none.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from safetensors import SafetensorError

log = logging.getLogger(__name__)

Model = TypeVar("Model")

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class QuantizedCache:
    """The entry for one identity: whatever decides the bytes of the quantized weights."""

    folder: Path
    identity: dict[str, str]

    @property
    def entry(self) -> Path:
        """The folder of the entry, there or not."""
        whole = json.dumps(self.identity, sort_keys=True).encode()
        return self.folder / hashlib.sha256(whole).hexdigest()[:32]

    def load_or_make(
        self,
        *,
        load: Callable[[Path], Model],
        write: Callable[[Path], None],
        make: Callable[[], Model],
    ) -> Model:
        """Return `load(entry)`, having had `write` fill the entry unless an intact one is there.

        Of several starters one writes the entry and the others wait for it. Where it cannot be
        written, return `make()`.
        """
        # Whoever finds an intact entry needs no lock: nobody replaces it, not even in a folder
        # that cannot be written, as in an image.
        if not self.is_intact():
            with self._locked() as is_locked:
                is_there = is_locked and (self.is_intact() or self._replace_entry(write))
            if not is_there:
                return make()
        return load(self.entry)

    def is_intact(self) -> bool:
        """Whether the entry is there and every byte of it is as it was written."""
        try:
            manifest = json.loads((self.entry / MANIFEST_FILE).read_bytes())
            if manifest["identity"] != self.identity:
                return False
            return all(
                _fingerprint(self.entry / name) == wanted
                for name, wanted in manifest["files"].items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def _replace_entry(self, write: Callable[[Path], None]) -> bool:
        """Return whether `write` made a new entry.

        Call with the lock held, so that no partial one has a living writer. A failure leaves no
        entry and is logged, since there is a way without.
        """
        partial = self.entry.with_suffix(".partial")
        try:
            _remove(partial)
            partial.mkdir()
            write(partial)
            files = {path.name: _fingerprint(path) for path in sorted(partial.iterdir())}
            manifest = {"identity": self.identity, "files": files}
            (partial / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1))
            for path in (*partial.iterdir(), partial):
                flush_to_disk(path)
            _remove(self.entry)
            partial.rename(self.entry)
            flush_to_disk(self.folder)
            return True
        except (OSError, SafetensorError) as error:
            log.warning("quantized weights were not kept in %s: %s", self.folder, error)
            with contextlib.suppress(OSError):
                _remove(partial)
            return False

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the entry's lock, which ends with its process; yields whether there is one."""
        lock = FileLock(self.entry.with_suffix(".lock"))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            log.warning("quantized weights cannot be kept in %s: %s", self.folder, error)
        try:
            yield lock.is_locked
        finally:
            lock.release()


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"num_bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def flush_to_disk(path: Path) -> None:
    """Wait until the file or folder `path` would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
