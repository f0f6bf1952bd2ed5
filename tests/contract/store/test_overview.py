"""The state of the whole service is read from Redis in few round trips."""

import pytest
import redis

from contract import keys
from contract.errors import BrokerUnavailable
from contract.store.batches.batch_store import BatchStore
from contract.store.connection.broker_guard import BrokerGuard
from contract.store.connection.readings import read, read_together
from contract.store.overview import OverviewReader
from contract.store.queue.dead_letters import DeadLetters
from contract.store.queue.model_registry import ModelRegistry
from contract.worker_status import WorkerStatus
from tests.contract.store.test_batch_store import accepted
from tests.contract.store.test_job_store import a_job


@pytest.fixture
def batches(redis_client, job_store, settings):
    return BatchStore(redis_client, settings, job_store)


class CountingConnection(redis.Connection):
    """Counts how often something was sent to Redis."""

    num_sent = 0

    def send_packed_command(self, *args, **kwargs):
        CountingConnection.num_sent += 1
        super().send_packed_command(*args, **kwargs)


@pytest.fixture
def reader(settings):
    pool = redis.ConnectionPool.from_url(settings.redis, connection_class=CountingConnection)
    with redis.Redis(connection_pool=pool) as client:
        client.ping()
        yield OverviewReader(client, settings, BrokerGuard())
    pool.disconnect()


def test_overview_takes_two_round_trips_however_much_there_is(
    reader, redis_client, settings, job_store, batches
):
    for number in range(3):
        name = f"w{number}"
        redis_client.sadd(keys.WORKERS, name)
        redis_client.set(keys.lease(name), WorkerStatus(name=name, state="ready").encode())
        ModelRegistry(redis_client).make_current(f"m{number}", str(number) * 12)
        job_store.submit(a_job(5, fingerprint=str(number) * 12, model=f"m{number}"))
        DeadLetters(redis_client, settings).add("message", "not_json", num_bytes=1)
        redis_client.sadd(keys.PARKED, number + 2)
        redis_client.zadd(keys.parked(number + 2), {f"message {number}": 1})
    for _ in range(3):
        accepted(batches, 2)

    before = CountingConnection.num_sent
    now = reader.read()

    assert CountingConnection.num_sent == before + 2
    assert (now.depth.jobs, now.depth.bytes, now.num_parked) == (3, 15, 3)
    assert [worker.name for worker in now.workers] == ["w0", "w1", "w2"]
    assert [letter.kind for letter in now.letters] == ["message"] * 3
    waiting = [(queue.name, queue.interactive) for queue in now.queues if queue.name]
    assert waiting == [("m0", 1), ("m1", 1), ("m2", 1)]
    assert now.bulk.statuses["in_progress"] == 3
    assert now.persistence.is_on


def test_empty_service_is_read_too(reader):
    now = reader.read()
    assert (now.depth.jobs, now.totals, now.workers, now.letters) == (0, {}, [], [])
    assert now.bulk.num_batches == now.num_parked == 0


def be_a_replica(server, client):
    client.replicaof("127.0.0.1", 1)


def lack_replicas(server, client):
    client.config_set("min-replicas-to-write", 1)


def have_no_disk(server, client):
    server.fill_disk()


def be_full(server, client):
    client.config_set("maxmemory", 1)


@pytest.mark.parametrize(
    ("change", "is_writable"),
    [(be_a_replica, False), (lack_replicas, False), (have_no_disk, False), (be_full, True)],
)
def test_redis_that_takes_no_writes_is_read(
    reader, redis_server, redis_client, job_store, batches, change, is_writable
):
    job_store.submit(a_job(5))
    redis_client.delete(keys.batch(accepted(batches, 2)))
    change(redis_server, redis_client)
    now = reader.read()
    assert now.is_writable == is_writable
    assert now.depth.jobs == 1
    # One that expired is forgotten where that can be written: this frees memory.
    assert now.bulk.num_batches == (0 if is_writable else 1)
    if is_writable:
        job_store.check_writable()
    else:
        with pytest.raises(BrokerUnavailable, match="Redis refuses writes"):
            job_store.check_writable()


def test_error_of_a_command_is_raised_in_the_reading_that_sent_it(redis_client):
    redis_client.set("text", "x")

    def failing():
        try:
            yield [("GET", "text"), ("HGETALL", "text"), ("GET", "text")]
        except redis.ResponseError:
            return "refused"

    def counting():
        (first,) = yield [("APPEND", "text", "y")]
        (second,) = yield [("STRLEN", "text")]
        return first, second

    assert read_together(redis_client, failing(), counting()) == ("refused", (2, 2))


def test_error_that_a_reading_does_not_catch_reaches_the_caller(redis_client):
    redis_client.set("text", "x")

    def failing():
        yield [("HGETALL", "text")]

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        read(redis_client, failing())
