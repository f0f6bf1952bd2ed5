"""Folders on network mounts are warned about, local ones are not."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from worker.process.storage import MOUNTS, filesystem, warn_of_network_mounts

MOUNTINFO = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:40 / /home rw - nfs4 server:/home rw,vers=4.2
31 30 254:2 / /home/scratch rw - xfs /dev/nvme0n1 rw
32 22 0:41 / /mnt/two\\040words rw - fuse.gcsfuse bucket rw
33 22 0:42 / /data rw - ext4 /dev/sdb rw
34 22 0:43 / /data rw master:2 - lustre mds:/data rw
"""


@pytest.fixture
def mounts(tmp_path):
    """A file like the kernel's."""
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTINFO)
    return path


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/srv/model", "ext4"),
        ("/home/ann/model", "nfs4"),
        ("/home/scratch/model", "xfs"),
        ("/homely", "ext4"),
        ("/mnt/two words/cache", "fuse.gcsfuse"),
        ("/data/cache", "lustre"),
    ],
)
def test_deepest_and_latest_mount_counts(mounts, folder, kind):
    assert filesystem(Path(folder), mounts) == kind


@pytest.mark.parametrize(
    ("folder", "is_warned_of"),
    [("/srv", False), ("/home", True), ("/home/scratch", False), ("/mnt/two words", True)],
)
def test_network_mounts_are_warned_of(mounts, folder, is_warned_of):
    with capture_logs() as logs:
        warn_of_network_mounts(Path(folder), mounts=mounts)
    assert [line["event"] for line in logs] == ["folder_on_network_mount"] * is_warned_of


def test_this_machine_is_understood(tmp_path):
    assert filesystem(tmp_path)
    assert filesystem(Path("/proc")) == "proc"
    assert MOUNTS.exists()


def test_system_without_mountinfo_is_not_warned_of(tmp_path):
    with capture_logs() as logs:
        warn_of_network_mounts(Path("/home"), mounts=tmp_path / "none")
    assert logs == []
