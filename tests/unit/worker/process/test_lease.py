"""What a worker reports about itself, in bounded size, and whose lease it takes over."""

import os
import time
from collections.abc import Iterator

import orjson
import psutil
import pytest

from contract import keys
from worker.process.lease import Lease, NameTaken
from worker.process.own_status import RECENT_BATCHES, RECENT_JOBS, OwnStatus
from worker.process.startup import Startup

LEASE_S = 1.0
# As if it was renewed in time, however busy this machine is.
RENEWED_S = 600.0


@pytest.fixture
def status() -> OwnStatus:
    return OwnStatus("w", 100, Startup("load", began_at=0.0))


def test_last_batches_are_kept_oldest_first(status):
    for num_slices in range(1, RECENT_BATCHES + 3):
        status.count_micro_batch(num_slices, 10 * num_slices, 0.0125, num_texts=1)
    found = orjson.loads(status.encode())["recent_batches"]
    assert len(found) == RECENT_BATCHES
    assert found[0] == [3, 30, 12.5]
    assert found[-1] == [RECENT_BATCHES + 2, 10 * (RECENT_BATCHES + 2), 12.5]


def test_mean_size_of_a_micro_batch_is_told_in_slices(status):
    for num_slices, num_texts in ((3, 3), (4, 0), (1, 1)):
        status.count_micro_batch(num_slices, 100, 0.5, num_texts=num_texts)
    found = orjson.loads(status.encode())
    assert (found["num_batches"], found["num_texts"]) == (3, 4)
    assert found["mean_batch_texts"] == pytest.approx(8 / 3)


def test_last_latencies_are_kept_oldest_first(status):
    status.count_latencies(ms / 1000 for ms in range(RECENT_JOBS))
    status.count_latencies([0.0281])
    found = orjson.loads(status.encode())["recent_latencies_ms"]
    assert len(found) == RECENT_JOBS
    assert (found[0], found[-1]) == (1.0, 28.1)


def test_clock_that_is_set_back_gives_no_negative_latency(status):
    status.count_latencies([-3.0])
    assert status.recent_latencies_ms == (0.0,)


def test_before_the_first_batch_nothing_is_claimed(status):
    found = orjson.loads(status.encode())
    assert (found["recent_batches"], found["recent_latencies_ms"]) == ([], [])
    assert (found["bytes_per_s"], found["mean_batch_texts"]) == (None, None)


@pytest.fixture
def new_lease(redis_client) -> Iterator:
    """Make leases of one name, each as a process of its own with other facts would hold it."""
    leases = []

    def make(lease_s: float = LEASE_S, **facts) -> Lease:
        own = OwnStatus("w", 100, Startup("load", began_at=0.0))
        for name, value in facts.items():
            setattr(own, name, value)
        leases.append(Lease(redis_client, own, lease_s=lease_s, micro_batch_timeout_s=300))
        return leases[-1]

    yield make
    for lease in leases:
        lease.release()


PIDS = pytest.mark.parametrize(
    "pid", [os.getpid(), max(psutil.pids()) + 1000], ids=["own", "of_no_process"]
)


@pytest.mark.parametrize(
    "place",
    [{"pid_namespace": "boot pid:[2]"}, {"pid_namespace": ""}, {"host": "another"}],
    ids=["another_container", "of_an_earlier_release", "another_host"],
)
@PIDS
def test_running_worker_elsewhere_keeps_its_name_whatever_its_process_id(new_lease, place, pid):
    new_lease(RENEWED_S, pid=pid, **place).renew()
    with pytest.raises(NameTaken):
        new_lease().acquire()


def test_lease_of_a_dead_worker_elsewhere_is_taken_when_it_expires(new_lease, redis_client):
    began_at = time.monotonic()
    new_lease(pid_namespace="boot pid:[2]").renew()
    new_lease().acquire()
    assert time.monotonic() - began_at > LEASE_S / 2
    assert orjson.loads(redis_client.get(keys.lease("w")))["pid_namespace"] != "boot pid:[2]"


@PIDS
def test_lease_of_a_dead_process_beside_this_one_is_taken_at_once(new_lease, pid):
    new_lease(RENEWED_S, pid=pid).renew()
    assert not new_lease()._is_held_by_other()


def test_running_process_beside_this_one_keeps_its_name(new_lease):
    new_lease(RENEWED_S, pid=os.getppid()).renew()
    assert new_lease()._is_held_by_other()
