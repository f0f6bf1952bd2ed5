"""Which fingerprint is current for a name: that of the last worker that became ready."""

from dataclasses import replace

import pytest

from contract import keys
from contract.store.batches.batch_queue import BatchQueue
from contract.store.connection.readings import read
from contract.store.queue.model_registry import ModelQueue, ModelRegistry, ask_queues
from contract.worker_status import WorkerStatus
from tests.contract.store.test_job_store import a_job
from worker.process.lease import Lease
from worker.process.own_status import OwnStatus
from worker.process.registration import Registration
from worker.process.runtime import Runtime
from worker.process.startup import Startup

OLD, NEW = "0" * 12, "1" * 12


@pytest.fixture
def registry(redis_client) -> ModelRegistry:
    return ModelRegistry(redis_client)


def ready_worker(registry: ModelRegistry, fingerprint: str, name: str = "mine") -> Registration:
    status = WorkerStatus(name="w", state="ready", model={"name": name, "fingerprint": fingerprint})
    registration = Registration(registry, status)
    registration.renew()
    return registration


def test_the_last_worker_that_became_ready_counts(registry):
    ready_worker(registry, OLD)
    ready_worker(registry, NEW)
    ready_worker(registry, OLD, name="theirs")

    assert registry.current() == {"mine": NEW, "theirs": OLD}
    assert registry.fingerprints() == {OLD, NEW}


def test_a_worker_that_only_goes_on_does_not_take_the_name_back(registry):
    old = ready_worker(registry, OLD)
    ready_worker(registry, NEW)
    old.renew()

    assert registry.current() == {"mine": NEW}


def test_a_worker_that_becomes_ready_while_redis_is_away_is_current_later(
    redis_server, redis_client, settings, job_store
):
    status = OwnStatus("w", 1, Startup("import", began_at=0.0))
    status.model = {"name": "mine", "fingerprint": OLD}
    lease = Lease(redis_client, status, lease_s=5, micro_batch_timeout_s=60)
    registration = Registration(job_store.models, status)
    queue = BatchQueue(redis_client, settings)
    runtime = Runtime(settings, redis_client, job_store, queue, status, lease, registration)
    job_store.note_model_drifted("other")

    redis_server.kill()
    runtime.become_ready()
    assert status.state == "ready"
    redis_server.start()
    assert job_store.has_model_drifted()
    registration.renew()

    assert job_store.current_models() == {"mine": OLD}
    assert not job_store.has_model_drifted()


def test_a_registry_that_redis_has_lost_is_made_again(registry, redis_client):
    worker = ready_worker(registry, OLD)
    redis_client.flushdb()
    worker.renew()

    assert registry.current() == {"mine": OLD}
    assert registry.fingerprints() == {OLD}


def test_what_waits_is_counted_for_each_model(registry, job_store, redis_client):
    ready_worker(registry, OLD)
    for asked, fingerprint, number in (("", "?", 1), ("mine", OLD, 2), ("mine", OLD, 3)):
        job_store.submit(a_job(1, model=asked, fingerprint=fingerprint, client=str(number)))
    ready_worker(registry, NEW)
    job_store.submit(a_job(1, model="mine", fingerprint=NEW, priority=keys.BULK))

    queues = read(redis_client, ask_queues())
    found = {queue.fingerprint: replace(queue, oldest_at={}) for queue in queues}
    assert found == {
        keys.UNBOUND: ModelQueue(keys.UNBOUND, "", 1, 0),
        OLD: ModelQueue(OLD, "", 2, 0),
        NEW: ModelQueue(NEW, "mine", 0, 1),
    }


def test_oldest_message_of_all_clients_is_found_for_each_priority(
    registry, job_store, redis_client
):
    ready_worker(registry, OLD)
    for client, submitted_at in (("b", 1769860800.25), ("b", 1769860802.0), ("a", 1769860805.5)):
        job_store.submit(
            a_job(1, fingerprint=OLD, model="mine", client=client, submitted_at=submitted_at)
        )
    (queue,) = (each for each in read(redis_client, ask_queues()) if each.fingerprint == OLD)
    assert queue.oldest_at == {"interactive": 1769860800.25}


def test_a_worker_becomes_current_though_redis_is_full(registry, redis_client):
    redis_client.config_set("maxmemory", 1)
    ready_worker(registry, OLD)

    assert registry.current() == {"mine": OLD}
