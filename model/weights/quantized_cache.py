"""Caches quantized weights on disk, so that the next start does not quantize again.

An entry is a folder in the layout of a checkpoint. Its manifest lists the size and SHA-256 of every
file. The entry is written under another name and renamed when all of it is on disk. So a reader
finds a whole entry or none, whenever the writer ends.
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
    """The entry for one identity: everything that decides the bytes of the quantized weights."""

    folder: Path
    identity: dict[str, str]

    @property
    def entry(self) -> Path:
        """The folder of the entry, whether it exists or not."""
        whole = json.dumps(self.identity, sort_keys=True).encode()
        return self.folder / hashlib.sha256(whole).hexdigest()[:32]

    def load_or_make(
        self,
        *,
        load: Callable[[Path], Model],
        write: Callable[[Path], None],
        make: Callable[[], Model],
    ) -> Model:
        """Return `load(entry)`, after `write` has filled the entry unless it is intact.

        If several processes start, one writes the entry and the others wait. Where the entry
        cannot be written, return `make()`.
        """
        # An intact entry is never replaced, so reading it needs no lock. It may lie in a folder
        # that cannot be written, as in an image.
        if not self.is_intact():
            with self._locked() as is_locked:
                is_there = is_locked and (self.is_intact() or self._replace_entry(write))
            if not is_there:
                return make()
        return load(self.entry)

    def is_intact(self) -> bool:
        """Tell whether the entry exists and every byte is as it was written."""
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
        """Let `write` make a new entry; return whether it did.

        Call it with the lock held: then no partial entry has a living writer. A failure leaves no
        entry and is only logged, since the model can be loaded without it.
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
            log.warning("quantized weights were not cached in %s: %s", self.folder, error)
            with contextlib.suppress(OSError):
                _remove(partial)
            return False

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the lock of the entry, which ends with its process; yield whether it is held."""
        lock = FileLock(self.entry.with_suffix(".lock"))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            log.warning("quantized weights cannot be cached in %s: %s", self.folder, error)
        try:
            yield lock.is_locked
        finally:
            lock.release()


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"num_bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def flush_to_disk(path: Path) -> None:
    """Wait until the file or folder `path` is on disk and survives a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
