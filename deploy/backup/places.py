"""Stores backups in a folder, or with `gcloud` in a bucket of Google Cloud Storage."""

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from deploy.backup.errors import StateFailed


class Place(Protocol):
    """Stores files by name; `put` stores a file completely or not at all."""

    def names(self) -> list[str]:
        """The names of all files, sorted."""

    def put(self, file: Path) -> None:
        """Store `file` under its own name."""

    def get(self, name: str, folder: Path) -> Path:
        """Fetch `name` into `folder` and return its path."""

    def remove(self, name: str) -> None:
        """Delete `name`."""


def find_place(name: str) -> Place:
    """The place for `name`: a bucket if it starts with `gs://`, else a folder.

    Raises:
        StateFailed: another kind of URL.
    """
    if name.startswith("gs://"):
        return Bucket(name.rstrip("/"))
    if "://" in name:
        raise StateFailed(f"{name} is neither a folder nor gs://BUCKET/PATH; name one of them")
    return Folder(Path(name))


class Folder:
    """A folder, which should be on another disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        """The names of all files, sorted."""
        if not self._path.is_dir():
            return []
        return sorted(path.name for path in self._path.iterdir() if path.is_file())

    def put(self, file: Path) -> None:
        """Store `file` under its own name; a temporary name keeps half a file from being found."""
        partial = self._path / f"{file.name}.part"
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            # It contains users' texts, and others may be able to read the folder.
            partial.unlink(missing_ok=True)
            partial.touch(mode=0o600)
            shutil.copyfile(file, partial)
            partial.rename(self._path / file.name)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise StateFailed(
                f"{self._path} cannot be written ({error.strerror}); "
                "make room there, or name another place with --to"
            ) from None

    def get(self, name: str, folder: Path) -> Path:
        """The stored file itself; nothing is copied."""
        return self._path / name

    def remove(self, name: str) -> None:
        """Delete `name`."""
        (self._path / name).unlink(missing_ok=True)


class Bucket:
    """A folder of a bucket, with the account that `gcloud` is logged in with."""

    def __init__(self, url: str) -> None:
        self._url = url

    def names(self) -> list[str]:
        """The names of all files, sorted."""
        ended = _gcloud("ls", f"{self._url}/*")
        if "matched no objects" in ended.stderr:
            return []
        self._check(ended)
        return sorted(line.rpartition("/")[2] for line in ended.stdout.split())

    def put(self, file: Path) -> None:
        """Store `file` under its own name."""
        self._check(_gcloud("cp", str(file), f"{self._url}/{file.name}"))

    def get(self, name: str, folder: Path) -> Path:
        """Fetch `name` into `folder` and return its path."""
        self._check(_gcloud("cp", f"{self._url}/{name}", str(folder / name)))
        return folder / name

    def remove(self, name: str) -> None:
        """Delete `name`."""
        self._check(_gcloud("rm", f"{self._url}/{name}"))

    def _check(self, ended: subprocess.CompletedProcess[str]) -> None:
        if ended.returncode:
            said = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise StateFailed(
                f"{self._url} cannot be used ({said}); "
                "check that the bucket exists and that this machine may write to it"
            )


def _gcloud(verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ("gcloud", "storage", verb, *arguments)
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
        raise StateFailed("gcloud is not installed; install it or name a folder") from None
