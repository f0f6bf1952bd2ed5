"""Copies Redis's append-only files consistently while the server writes them.

Redis 7 has a manifest that names a base file, which never changes, and incremental files, of
which only the last one grows. A rewrite replaces base and manifest. If the manifest is the same
before and after the copy, the files are of one moment. Only the end of the last file may contain
half a command. Redis cuts that off when it loads the file (`aof-load-truncated`, on by default).
No command is sent to the server, so no password is needed.

Source: https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/
"""

import shutil
from pathlib import Path

from deploy.backup.archive import keep_owner
from deploy.backup.errors import StateFailed

FOLDER = "appendonlydir"
MANIFEST = "appendonly.aof.manifest"
# A rewrite takes seconds to minutes and starts at twice the size: two in a row are rare.
MAX_TRIES = 10


def has_aof(redis_dir: Path) -> bool:
    """Whether `redis_dir` contains the append-only files of a Redis server."""
    return (redis_dir / FOLDER / MANIFEST).is_file()


def copy_aof(redis_dir: Path, target: Path) -> None:
    """Copy the append-only files of `redis_dir` to `target`, which becomes such a folder itself.

    Raises:
        StateFailed: the server kept rewriting its files.
    """
    source = redis_dir / FOLDER
    for _ in range(MAX_TRIES):
        shutil.rmtree(target / FOLDER, ignore_errors=True)
        (target / FOLDER).mkdir(parents=True)
        try:
            manifest = (source / MANIFEST).read_bytes()
            for name in _files(manifest):
                shutil.copy2(source / name, target / FOLDER / name)
            (target / FOLDER / MANIFEST).write_bytes(manifest)
            if (source / MANIFEST).read_bytes() == manifest:
                keep_owner(redis_dir, target)
                for path in (source, *(source / name for name in [*_files(manifest), MANIFEST])):
                    keep_owner(path, target / path.relative_to(redis_dir))
                return
        except FileNotFoundError:
            # A rewrite ended meanwhile and removed what its manifest no longer names.
            continue
    raise StateFailed(f"Redis keeps rewriting {source}; try again when it is less busy")


def _files(manifest: bytes) -> list[str]:
    """The files that a manifest names, history left out, in the order of writing."""
    found = []
    for line in manifest.decode().splitlines():
        words = line.split()
        fields = dict(zip(words[::2], words[1::2], strict=False))
        if fields.get("type") in ("b", "i"):
            found.append(fields["file"])
    return found
