"""Which deaths count against which jobs, on a real Redis."""

import time

import pytest

from contract import keys
from contract.messages import Job
from contract.queue_messages import task_message
from contract.settings import Settings
from contract.store.connection.readings import read
from contract.store.jobs.job_store import JobStore
from contract.store.queue.leases import LOST_S, ask_lost
from tests.waiting_messages import waiting
from worker.process.lease import Lease
from worker.process.own_status import OwnStatus
from worker.process.startup import Startup
from worker.process.suspects import MISSING_S, Crashes, blame, crashes_of
from worker.recovery import dead_workers
from worker.recovery.dead_workers import give_back, requeue_of_missing_peers, take_over


class Worker:
    """What Redis knows of a worker; `go_missing` lets its lease expire."""

    def __init__(self, name: str, store: JobStore, client, settings: Settings) -> None:
        self.name, self._store, self._client = name, store, client
        status = OwnStatus(name, settings.micro_batch_bytes, Startup("consume", began_at=0.0))
        self.lease = Lease(client, status, lease_s=5, micro_batch_timeout_s=5)
        self.lease.has_name = True
        self.lease.renew()

    def score(self, *task_ids: str) -> None:
        self._store.note_aboard(task_ids, self.name)

    def go_missing(self) -> None:
        self._client.delete(keys.lease(self.name))


@pytest.fixture
def worker(job_store, redis_client, settings):
    return Worker("w", job_store, redis_client, settings)


def lost(client) -> list[str]:
    return read(client, ask_lost())


def deaths(client, task_id: str) -> int:
    return crashes_of(client, [task_id])[task_id].deaths


def test_successor_of_a_dead_worker_counts_its_death(worker, redis_client):
    worker.score("a", "b")
    take_over(redis_client, "w")
    take_over(redis_client, "w")
    assert crashes_of(redis_client, ["a", "b", "c"]) == {
        "a": Crashes(1, was_alone=False),
        "b": Crashes(1, was_alone=False),
        "c": Crashes(0, was_alone=False),
    }


def test_worker_that_ends_by_itself_blames_nobody(worker, redis_client):
    worker.score("a")
    give_back(redis_client, "w")
    take_over(redis_client, "w")
    assert deaths(redis_client, "a") == 0


def test_job_is_at_fault_only_if_a_worker_died_of_it_alone(worker, redis_client):
    for mates in (("a", "b"), ("a", "b"), ("a", "b")):
        worker.score(*mates)
        blame(redis_client, "w")
    assert not crashes_of(redis_client, ["a"])["a"].are_too_many(3)
    worker.score("a")
    blame(redis_client, "w")
    found = crashes_of(redis_client, ["a", "b"])
    assert found["a"].are_too_many(3)
    assert not found["b"].are_too_many(3)


def test_missing_worker_that_comes_back_blames_nobody(worker, redis_client):
    worker.score("a")
    worker.go_missing()
    requeue_of_missing_peers(redis_client, "peer")
    assert redis_client.zscore(keys.MISSING, "w")
    worker.lease.renew()
    assert not redis_client.exists(keys.MISSING, keys.missing_aboard("w"))
    take_over(redis_client, "w")
    assert deaths(redis_client, "a") == 0


def test_death_of_a_missing_worker_counts_when_a_successor_has_its_name(worker, redis_client):
    worker.score("a")
    worker.go_missing()
    requeue_of_missing_peers(redis_client, "peer")
    assert deaths(redis_client, "a") == 0
    take_over(redis_client, "w")
    assert crashes_of(redis_client, ["a"])["a"] == Crashes(1, was_alone=True)
    assert not redis_client.exists(keys.MISSING)


def test_worker_that_stays_missing_counts_as_dead_once(worker, redis_client):
    worker.score("a")
    worker.go_missing()
    requeue_of_missing_peers(redis_client, "peer")
    redis_client.zadd(keys.MISSING, {"w": time.time() - MISSING_S - 1})
    for _ in range(2):
        requeue_of_missing_peers(redis_client, "peer")
    assert deaths(redis_client, "a") == 1
    assert not redis_client.exists(keys.MISSING, keys.aboard("w"), keys.missing_aboard("w"))


def test_missing_worker_that_scored_nothing_is_forgotten(worker, redis_client, job_store):
    now = time.time()
    job_store.submit(Job([{"text": "x"}], 1, now, now + 60))
    worker.go_missing()
    requeue_of_missing_peers(redis_client, "peer")
    assert not redis_client.exists(keys.MISSING)
    assert not redis_client.sismember(keys.WORKERS, "w")


def test_lost_worker_is_shown_until_it_is_back(worker, redis_client, job_store, settings):
    peer = Worker("peer", job_store, redis_client, settings)
    assert lost(redis_client) == []
    worker.go_missing()
    # Nobody else need have seen it.
    assert lost(redis_client) == ["w"]
    requeue_of_missing_peers(redis_client, "peer")
    assert lost(redis_client) == ["w"]
    worker.lease.renew()
    assert lost(redis_client) == []
    worker.lease.release()
    peer.lease.release()
    assert lost(redis_client) == []


def test_lost_worker_is_shown_for_an_hour_beside_others(worker, redis_client):
    worker.go_missing()
    requeue_of_missing_peers(redis_client, "peer")
    assert 3500 < redis_client.ttl(keys.LOST_WORKERS) <= LOST_S
    redis_client.zadd(keys.LOST_WORKERS, {"w": time.time() - LOST_S - 1})
    assert lost(redis_client) == []
    worker.lease.renew()
    redis_client.zadd(keys.LOST_WORKERS, {"older": time.time() - LOST_S - 1})
    worker.go_missing()
    requeue_of_missing_peers(redis_client, "peer")
    assert redis_client.zrange(keys.LOST_WORKERS, 0, -1) == [b"w"]


def test_count_does_not_stay_for_ever(worker, redis_client):
    worker.score("a")
    blame(redis_client, "w")
    assert 0 < redis_client.ttl(keys.crashes("a")) <= 24 * 3600


@pytest.mark.parametrize("has_renewed", [True, False])
def test_messages_of_a_worker_that_woke_while_a_peer_requeued_are_requeued_later(
    worker, redis_client, monkeypatch, has_renewed
):
    requeue = dead_workers.requeue_left_behind

    def wake_afterwards(*args):
        requeue(*args)
        # It fetches before it dies for good.
        message = task_message("a", 1, keys.INTERACTIVE).decode()
        redis_client.hset(keys.unacked("w"), "a", f'[{message}, "", "{keys.QUEUE}"]')
        redis_client.zadd(keys.unacked_index("w"), {"a": 1})
        if has_renewed:
            worker.lease.renew()

    worker.go_missing()
    with monkeypatch.context() as patch:
        patch.setattr(dead_workers, "requeue_left_behind", wake_afterwards)
        requeue_of_missing_peers(redis_client, "peer")
    worker.go_missing()
    requeue_of_missing_peers(redis_client, "peer")
    assert not redis_client.exists(keys.unacked("w"))
    assert not redis_client.sismember(keys.WORKERS, "w")
    assert len(waiting(redis_client)) == 1


def test_worker_that_renews_its_lease_while_a_peer_requeues_stays_a_worker(
    worker, redis_client, monkeypatch
):
    worker.go_missing()
    monkeypatch.setattr(dead_workers, "requeue_left_behind", lambda *_: worker.lease.renew())
    requeue_of_missing_peers(redis_client, "peer")
    assert redis_client.sismember(keys.WORKERS, "w")


def test_peer_that_looks_while_a_worker_stops_does_not_note_it_as_lost(
    worker, redis_client, monkeypatch
):
    send = redis_client.execute_command

    def send_and_look(*command):
        answer = send(*command)
        with monkeypatch.context() as patch:
            patch.setattr(redis_client, "execute_command", send)
            requeue_of_missing_peers(redis_client, "peer")
        return answer

    monkeypatch.setattr(redis_client, "execute_command", send_and_look)
    worker.lease.release()
    monkeypatch.undo()
    requeue_of_missing_peers(redis_client, "peer")
    assert lost(redis_client) == []
