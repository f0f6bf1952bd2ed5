"""What is kept, under which names, for how long: Redis's files at every turn, caches on change.

A backup is an archive and, written after it, its checksum: an archive without one is unfinished and
is never restored. `redis-20261122T053000Z.tar.zst` is of that UTC time; the name of an archive of
caches also holds their fingerprint, so that unchanged gigabytes are not stored again.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.backup.aof import copy_aof, has_aof
from deploy.backup.archive import SUFFIX, content, fingerprint, pack, sha256, unpack
from deploy.backup.errors import StateFailed
from deploy.backup.places import Place

CHECKSUM = ".sha256"
_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class State:
    """The folders of one machine and the place that keeps them."""

    redis_dir: Path
    cache_dir: Path | None
    place: Place
    keep: int
    """Backups of each kind that stay; the oldest ones go."""
    say: Callable[[str], None]
    is_dry_run: bool = False

    def backup(self) -> None:
        """Store what changed, verify it where it lies, and drop what is too old.

        Raises:
            StateFailed: nothing older was dropped.
        """
        if has_aof(self.redis_dir):
            with tempfile.TemporaryDirectory(prefix="evascore-") as copy:
                if not self.is_dry_run:
                    copy_aof(self.redis_dir, Path(copy))
                self._store(Path(copy), f"redis-{_now()}")
        else:
            self.say(f"{self.redis_dir} holds no Redis yet: nothing to back up there")
        if self.cache_dir is not None and content(self.cache_dir):
            self._backup_caches(self.cache_dir)

    def restore(self, *, keeps_what_is_there: bool = False) -> None:
        """Fill the empty folders from the newest backup that is whole; without one, leave them.

        Args:
            keeps_what_is_there: leave a folder that is not empty as it is: the disk outlived the
                machine and is newer than any backup.

        Raises:
            StateFailed: a folder is not empty and should be, or every backup is damaged.
        """
        for kind, folder in (("redis", self.redis_dir), ("caches", self.cache_dir)):
            if folder is None:
                continue
            if not content(folder):
                self._restore(kind, folder)
            elif keeps_what_is_there:
                self.say(f"{folder} is not empty: kept as it is")
            else:
                raise StateFailed(
                    f"{folder} is not empty; stop what uses it and move it away, then restore"
                )

    def _backup_caches(self, folder: Path) -> None:
        mark = fingerprint(folder)
        newest = self._complete("caches")[-1:]
        if newest and newest[0].endswith(f"-{mark}{SUFFIX}"):
            self.say(f"{newest[0]} is up to date")
            return
        self._store(folder, f"caches-{_now()}-{mark}")

    def _store(self, folder: Path, stem: str) -> None:
        if self.is_dry_run:
            self.say(f"would store {stem}{SUFFIX}")
            return
        with tempfile.TemporaryDirectory(prefix="evascore-") as scratch:
            archive = Path(scratch, stem + SUFFIX)
            pack(folder, archive)
            checksum = Path(scratch, archive.name + CHECKSUM)
            checksum.write_text(f"{sha256(archive)}  {archive.name}\n")
            self.place.put(archive)
            with tempfile.TemporaryDirectory(prefix="evascore-") as fetched:
                stored = self.place.get(archive.name, Path(fetched))
                if sha256(stored) != sha256(archive):
                    raise StateFailed(
                        f"{archive.name} differs from what was stored; check the disk"
                    )
            self.place.put(checksum)
            self.say(f"stored {archive.name}, {archive.stat().st_size} bytes, verified")
        self._prune(stem.partition("-")[0])

    def _prune(self, kind: str) -> None:
        """Drop whole backups beyond `keep`, and what an interrupted one left before the newest."""
        complete = self._complete(kind)
        for name in complete[: -self.keep]:
            self.place.remove(name + CHECKSUM)
            self.place.remove(name)
        kept = {part for name in complete[-self.keep :] for part in (name, name + CHECKSUM)}
        for name in self.place.names():
            if name.startswith(f"{kind}-") and name < complete[-1] and name not in kept:
                self.place.remove(name)

    def _complete(self, kind: str) -> list[str]:
        """The archives that have a checksum, the oldest first."""
        names = set(self.place.names())
        return sorted(
            name
            for name in names
            if name.startswith(f"{kind}-") and name.endswith(SUFFIX) and name + CHECKSUM in names
        )

    def _restore(self, kind: str, folder: Path) -> None:
        complete = self._complete(kind)
        if not complete:
            self.say(f"no backup of {kind} yet: starting without")
            return
        if self.is_dry_run:
            self.say(f"would restore {complete[-1]} to {folder}")
            return
        for name in reversed(complete):
            with tempfile.TemporaryDirectory(prefix="evascore-") as scratch:
                archive = self.place.get(name, Path(scratch))
                checksum = self.place.get(name + CHECKSUM, Path(scratch)).read_text()
                if sha256(archive) == checksum.split()[0]:
                    unpack(archive, folder)
                    self.say(f"restored {name} to {folder}")
                    return
            self.say(f"{name} is damaged: trying the one before")
        raise StateFailed(f"every backup of {kind} is damaged; start without, or look at the disk")


def _now() -> str:
    return time.strftime(_TIME, time.gmtime())
