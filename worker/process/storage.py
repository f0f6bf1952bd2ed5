"""Warns of folders on network mounts: reading a model from one makes every start slow."""

from pathlib import Path

from contract.logs import get_logger

log = get_logger(__name__)

MOUNTS = Path("/proc/self/mountinfo")
# File systems whose reads cross a network; FUSE ones are named `fuse.NAME`.
REMOTE = {
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse",
    "gpfs",
    "lustre",
    "nfs",
    "smb3",
    "virtiofs",
}


def warn_of_network_mounts(*folders: Path, mounts: Path = MOUNTS) -> None:
    """Log a warning for each of `folders` on a network mount."""
    for folder in folders:
        kind = filesystem(folder, mounts)
        if kind.rstrip("4").partition(".")[0] in REMOTE:
            log.warning(
                "folder_on_network_mount",
                folder=str(folder),
                filesystem=kind,
                remedy="copy it to a local disk, or name one with EVASCORE_CACHE_DIR",
            )


def filesystem(folder: Path, mounts: Path = MOUNTS) -> str:
    """Return the type of the file system of `folder`; empty where the system does not tell it.

    Source: proc(5), `/proc/PID/mountinfo`: mount point in field 5, type after a lone hyphen.
    """
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    found, kind = Path("/"), ""
    path = folder.resolve()
    for line in lines:
        place, _, rest = line.partition(" - ")
        point = Path(place.split()[4].replace("\\040", " "))
        # Of several mounts on one point the last one counts.
        if path.is_relative_to(point) and point.is_relative_to(found):
            found, kind = point, rest.split()[0]
    return kind
