"""The sign of life that a worker leaves in a file, for health checks that cannot ask Redis."""

import pytest

from contract import keys
from contract.store.connection.broker import connect
from tests.conftest import wait_until
from worker.process.lease import Lease
from worker.process.own_status import OwnStatus
from worker.process.startup import Startup


@pytest.mark.parametrize(
    ("state", "is_warm"),
    [("starting", False), ("ready", True), ("busy", True), ("draining", False)],
)
def test_worker_touches_its_health_file_while_it_is_warm(settings, tmp_path, state, is_warm):
    file = tmp_path / "warm"
    status = OwnStatus("w", 1, Startup("load", began_at=0.0))
    status.state = state
    with connect(settings) as client:
        lease = Lease(client, status, lease_s=5, micro_batch_timeout_s=300, health_file=file)
        lease.renew()
    assert file.exists() == is_warm


def test_worker_keeps_its_lease_when_its_health_file_cannot_be_touched(settings, tmp_path):
    file = tmp_path / "folder" / "warm"
    file.parent.mkdir()
    status = OwnStatus("w", 1, Startup("load", began_at=0.0))
    status.state = "ready"
    with connect(settings) as client:
        lease = Lease(client, status, lease_s=0.2, micro_batch_timeout_s=300, health_file=file)
        lease.acquire()
        # In one step: the thread of the lease may touch the file at any moment.
        file.parent.rename(tmp_path / "away")
        for _ in range(2):
            client.delete(keys.lease("w"))
            wait_until(lambda: client.exists(keys.lease("w")))
        file.parent.mkdir()
        wait_until(file.exists)
        lease.release()
