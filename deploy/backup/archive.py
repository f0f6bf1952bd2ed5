"""Packs a folder into one compressed file and back, and checks both."""

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy.backup.errors import StateFailed

SUFFIX = ".tar.zst"
# Where an archive is unpacked until all of it is there; on the target's own file system.
UNFINISHED = ".restoring"
_NOT_CONTENT = {UNFINISHED, "lost+found"}
_CHUNK_BYTES = 1024**2


def pack(folder: Path, archive: Path) -> None:
    """Write all of `folder`, with owners and times, to `archive`, and see that it unpacks."""
    _run(
        *("tar", "--create", "--zstd", "--numeric-owner", "--warning=no-file-changed"),
        *(f"--exclude=./{UNFINISHED}", "--exclude=./lost+found"),
        *("--file", str(archive), "--directory", str(folder), "."),
        # 1: a file of the cache changed meanwhile; the next backup has it.
        accepted=(0, 1),
    )
    _run("tar", "--list", "--zstd", "--file", str(archive))


def unpack(archive: Path, folder: Path) -> None:
    """Fill the empty `folder` from `archive`; a kill at any moment leaves no half file."""
    unfinished = folder / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _run(
        *("tar", "--extract", "--zstd", "--numeric-owner", "--file", str(archive)),
        *("--directory", str(unfinished)),
    )
    for path in list(unfinished.iterdir()):
        path.rename(folder / path.name)
    keep_owner(unfinished, folder)
    unfinished.rmdir()


def keep_owner(original: Path, copy: Path) -> None:
    """Give `copy` the owner, mode and times of `original`: a server must be able to write it."""
    shutil.copystat(original, copy)
    owner, now = original.stat(), copy.stat()
    if (owner.st_uid, owner.st_gid) != (now.st_uid, now.st_gid):
        shutil.chown(copy, owner.st_uid, owner.st_gid)


def content(folder: Path) -> list[Path]:
    """The content of `folder`, without the leftovers of an interrupted restore."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name not in _NOT_CONTENT)


def fingerprint(folder: Path) -> str:
    """12 characters that change with any file's path, size or time of change in `folder`."""
    digest = hashlib.sha256()
    for top in content(folder):
        for path in sorted([top, *top.rglob("*")]):
            if path.is_file():
                found = path.stat()
                name = path.relative_to(folder)
                digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _run(*command: str, accepted: Sequence[int] = (0,)) -> None:
    try:
        ended = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    except FileNotFoundError:
        raise StateFailed(f"{command[0]} is not installed; install tar and zstd") from None
    if ended.returncode < 0:
        raise StateFailed(
            f"{command[0]} was killed by signal {-ended.returncode}; "
            "check that this machine or container has memory to spare"
        )
    if ended.returncode not in accepted:
        said = (ended.stderr.strip().splitlines() or ["no reason given"])[0]
        raise StateFailed(
            f"{command[0]} failed ({said}); check that the disk has room and zstd is installed"
        )
