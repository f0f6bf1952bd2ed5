"""What the web server hears of changes in a real Redis: who reads, and how often."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from app.service.waiting import ChangeListener
from contract import keys
from contract.errors import BrokerUnavailable

CHANNEL = keys.batch("b")


@pytest.fixture
def changes(settings, job_store):
    listener = ChangeListener(settings, job_store)
    yield listener
    listener.close()


class Batch:
    """Counts how often it is read."""

    num_reads = 0

    def read(self) -> int:
        self.num_reads += 1
        return self.num_reads


def await_message(redis_client, inbox) -> None:
    """Publish until the listener, which may not have subscribed yet, hears it."""
    inbox.clear()
    while not inbox.wait(0.01):
        redis_client.publish(CHANNEL, b"")


def test_those_who_follow_a_batch_share_a_read_until_it_changes(changes, redis_client):
    batch = Batch()
    with changes.subscribed(CHANNEL) as inbox, ThreadPoolExecutor(20) as pool:
        for _ in range(3):
            found = list(pool.map(lambda _: changes.read_shared(CHANNEL, batch.read), range(1000)))
            assert max(found) == batch.num_reads < 100
            await_message(redis_client, inbox)
            assert changes.read_shared(CHANNEL, batch.read) > max(found)


def test_read_that_failed_is_shared_until_there_is_a_change(changes, redis_client):
    batch = Batch()

    def fail() -> int:
        batch.read()
        raise BrokerUnavailable("away")

    def follow(_) -> None:
        with pytest.raises(BrokerUnavailable):
            changes.read_shared(CHANNEL, fail)

    with changes.subscribed(CHANNEL) as inbox, ThreadPoolExecutor(20) as pool:
        list(pool.map(follow, range(1000)))
        assert batch.num_reads < 100
        await_message(redis_client, inbox)
        assert changes.read_shared(CHANNEL, batch.read) == batch.num_reads
