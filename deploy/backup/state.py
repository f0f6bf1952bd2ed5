"""Backs up Redis's files each time and the caches when they changed, and restores both.

A backup is an archive and its checksum, which is written after it. An archive without a checksum
is unfinished and is never restored. `redis-20261122T053000Z.tar.zst` has the UTC time in its
name. The name of an archive of caches also has their fingerprint, so that unchanged gigabytes are
not stored again.
"""

import calendar
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.backup.aof import copy_aof, has_aof
from deploy.backup.archive import SUFFIX, content, fingerprint, pack, sha256, unpack
from deploy.backup.errors import StateFailed
from deploy.backup.places import Place
from deploy.backup.rewriting import note_backup, note_failure, rewrite_aof
from deploy.backup.scratch import remove_leftovers, scratch_folder

CHECKSUM = ".sha256"
_TIME = "%Y%m%dT%H%M%SZ"
_SHOWN = "%Y-%m-%d %H:%M:%S UTC"


@dataclass(frozen=True, slots=True)
class State:
    """The folders of one machine and the place of their backups."""

    redis_dir: Path
    cache_dir: Path | None
    place: Place
    keep: int
    """How many backups of each kind stay; older ones are deleted."""
    max_age_s: float
    """Backups of Redis that are older are deleted when a new one is stored: they hold texts."""
    say: Callable[[str], None]
    is_dry_run: bool = False

    def backup(self) -> None:
        """Store what changed, verify it in its place, and delete old backups.

        Raises:
            StateFailed: no older backup was deleted.
        """
        try:
            self._backup()
        except (StateFailed, OSError):
            if not self.is_dry_run:
                note_failure(self.redis_dir)
            raise

    def _backup(self) -> None:
        if not self.is_dry_run:
            remove_leftovers()
        if has_aof(self.redis_dir):
            with scratch_folder() as scratch:
                # The copy has the mode of the original, which others may be able to enter. The
                # folder around it is ours alone.
                copy = scratch / "redis"
                if not self.is_dry_run:
                    if not rewrite_aof(self.redis_dir):
                        self.say("Redis does not run here: this backup may hold deleted texts")
                    copy_aof(self.redis_dir, copy)
                self._store(copy, f"redis-{_now()}")
                if not self.is_dry_run:
                    note_backup(self.redis_dir, int(time.time()))
        else:
            self.say(f"{self.redis_dir} has no data of Redis yet: nothing to back up there")
        if self.cache_dir is not None and content(self.cache_dir):
            self._backup_caches(self.cache_dir)

    def restore(self, *, keeps_what_is_there: bool = False) -> None:
        """Fill the empty folders from the newest complete backup; without one, leave them empty.

        Args:
            keeps_what_is_there: skip a folder that is not empty: the disk outlived the machine and
                is newer than any backup.

        Raises:
            StateFailed: a folder is not empty and should be, or every backup is damaged.
        """
        for kind, folder in (("redis", self.redis_dir), ("caches", self.cache_dir)):
            if folder is None:
                continue
            if not content(folder):
                self._restore(kind, folder)
            elif keeps_what_is_there:
                self.say(f"{folder} is not empty: left as it is")
            else:
                raise StateFailed(
                    f"{folder} is not empty; stop the program that uses it and move the folder away"
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
        with scratch_folder() as scratch:
            archive = scratch / (stem + SUFFIX)
            pack(folder, archive)
            checksum = scratch / (archive.name + CHECKSUM)
            checksum.write_text(f"{sha256(archive)}  {archive.name}\n")
            self.place.put(archive)
            with scratch_folder() as fetched:
                stored = self.place.get(archive.name, fetched)
                if sha256(stored) != sha256(archive):
                    raise StateFailed(
                        f"{archive.name} differs when it is read back; check the disk"
                    )
            self.place.put(checksum)
            self.say(f"stored {archive.name}, {archive.stat().st_size} bytes, verified")
        self._prune(stem.partition("-")[0])

    def _prune(self, kind: str) -> None:
        """Delete old backups, and leftovers that are older than the newest."""
        # Somebody else named the others; they are neither counted nor deleted.
        complete = [name for name in self._complete(kind) if _made_at(name) is not None]
        stay = [name for name in complete[-self.keep :] if not self._is_too_old(kind, name)]
        for name in complete:
            if name not in stay:
                self.place.remove(name + CHECKSUM)
                self.place.remove(name)
        kept = {part for name in stay for part in (name, name + CHECKSUM)}
        for name in self.place.names():
            is_old = name.startswith(f"{kind}-") and name < complete[-1] and name not in kept
            if is_old and _made_at(name) is not None:
                self.place.remove(name)

    def _is_too_old(self, kind: str, name: str) -> bool:
        if kind != "redis":
            # Caches hold no texts. Unchanged, they are not stored again.
            return False
        made_at = _made_at(name)
        return made_at is not None and made_at < time.time() - self.max_age_s

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
            self.say(f"no backup of {kind} yet: nothing to restore")
            return
        if self.is_dry_run:
            self.say(f"would restore {complete[-1]} to {folder}")
            return
        for name in reversed(complete):
            with scratch_folder() as scratch:
                archive = self.place.get(name, scratch)
                checksum = self.place.get(name + CHECKSUM, scratch).read_text()
                if sha256(archive) == checksum.split()[0]:
                    unpack(archive, folder)
                    self.say(f"restored {name} to {folder}")
                    if kind == "redis":
                        self._warn_of_return(name)
                    return
            self.say(f"{name} is damaged: trying the backup before it")
        raise StateFailed(
            f"every backup of {kind} is damaged; check the disk, or start without one"
        )

    def _warn_of_return(self, name: str) -> None:
        """Say what was revoked or erased after the backup `name`, and is back with it."""
        made_at = _made_at(name)
        since = "this backup" if made_at is None else time.strftime(_SHOWN, time.gmtime(made_at))
        self.say(
            f"API keys that were revoked since {since} work again, and results that were erased "
            "can be read again: compare `python -m app.keys list`, and revoke the keys again"
        )


def _made_at(name: str) -> float | None:
    """The Unix time in the name of an archive or of a part of it; None if it has none."""
    moment = name.partition(".")[0].split("-")[1]
    try:
        return calendar.timegm(time.strptime(moment, _TIME))
    except ValueError:
        return None


def _now() -> str:
    return time.strftime(_TIME, time.gmtime())
