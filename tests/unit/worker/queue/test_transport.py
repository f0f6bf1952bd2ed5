"""The transport on a real Redis that goes away, or that swallows what a connection carries."""

import time
from collections.abc import Iterator

import orjson
import pytest
import redis
from kombu import Connection, Consumer, Exchange, Queue
from kombu.asynchronous import Hub

from contract import keys
from contract.messages import Job
from contract.store.connection.celery_app import transport_options
from tests.conftest import wait_until
from tests.proxy import Proxy
from worker.queue import transport
from worker.scheduling.filling import Budget
from worker.scheduling.room import room_for_fetch


class Consuming:
    """A connection as Celery's consumer has it: one channel for tasks, one for control commands."""

    def __init__(self, url: str, options: dict) -> None:
        transport.install()
        self.hub = Hub()
        self.messages: list[str] = []
        self.connection = Connection(url, transport_options=options)
        tasks = Queue(keys.QUEUE, Exchange(keys.QUEUE), keys.QUEUE)
        control = Queue("control", Exchange("control", type="fanout"), auto_delete=True, expires=10)
        self.channels = [self.connection.channel(), self.connection.channel()]
        for channel, queue in zip(self.channels, (tasks, control), strict=True):
            Consumer(
                channel, [queue], on_message=lambda each: self.messages.append(each.delivery_tag)
            ).consume()
        self.connection.transport.register_with_event_loop(self.connection.connection, self.hub)
        self.hub.propagate_errors = self.connection.connection_errors
        self._loop = self.hub.create_loop()

    def close(self) -> None:
        """Close what a test left open."""
        self.connection.close()
        self.hub.close()

    def run_until(self, condition) -> None:
        """Turn the event loop until `condition()`."""
        wait_until(lambda: condition() or next(self._loop), timeout_s=60)


@pytest.fixture
def options(settings) -> dict:
    return {
        **transport_options(settings),
        "unacked_key": keys.unacked("w"),
        "first_room": room_for_fetch((), Budget.of(settings))[keys.INTERACTIVE],
        "read_message": lambda tag, raw, is_express: orjson.loads(raw),
        "on_answer": lambda: None,
        "aboard_key": keys.aboard("w"),
        "before_opening": lambda: None,
        "keep_opened": lambda answers: None,
    }


@pytest.fixture
def consuming(redis_server, options) -> Iterator[Consuming]:
    consuming = Consuming(redis_server.url, options)
    yield consuming
    consuming.close()


def submitted(job_store) -> str:
    now = time.time()
    return job_store.submit(Job([{"text": "x"}], 1, now, now + 60)).task_id


def test_connection_lost_with_jobs_and_a_fetch_in_flight_closes_every_channel(
    consuming, job_store, redis_server
):
    task_id = submitted(job_store)
    consuming.run_until(lambda: task_id in consuming.messages)
    consuming.run_until(lambda: consuming.channels[0]._in_poll)
    redis_server.kill()
    # What Celery does, in this order: it ignores the first error, and later stops each step.
    consuming.connection.collect(socket_timeout=0.1)
    consuming.connection.close()
    for channel in consuming.channels:
        assert channel.closed
        channel.close()
        channel.qos.restore_unacked_once()


def test_closing_leaves_what_was_fetched_unacknowledged(consuming, job_store, redis_client):
    first = submitted(job_store)
    consuming.run_until(lambda: first in consuming.messages)
    consuming.run_until(lambda: consuming.channels[0]._in_poll)
    second = submitted(job_store)
    consuming.connection.close()
    unacked = redis_client.hkeys(keys.unacked("w"))
    assert first.encode() in unacked
    assert consuming.messages == [first]
    num_waiting = redis_client.llen(keys.waiting(keys.UNBOUND, keys.INTERACTIVE))
    assert len(unacked) + num_waiting == 2
    assert second.encode() in unacked or num_waiting == 1


def test_messages_are_fetched_after_redis_forgot_its_scripts(consuming, job_store, redis_client):
    first = submitted(job_store)
    consuming.run_until(lambda: first in consuming.messages)
    redis_client.script_flush()
    second = submitted(job_store)
    consuming.run_until(lambda: second in consuming.messages)
    assert sorted(consuming.messages) == sorted([first, second])


ONE, TWO = [b"0", b"a", b"{}"], [b"0", b"a", b"{}", b"0", b"b", b"{}"]


@pytest.mark.parametrize(
    ("command", "replies", "fetches_next"),
    [
        # A fetch with messages may have left more; one without has left none.
        ("EVALSHA", [ONE], True),
        ("EVALSHA", [[]], False),
        # The wait ends with a message, which came alone (opened or not) or in company, or in time.
        ("BLMOVE", [b"a", ONE], False),
        ("BLMOVE", [b"a", [*ONE, [b"open", b"{}"]]], False),
        ("BLMOVE", [b"a", TWO], True),
        ("BLMOVE", [None, ONE], True),
        ("BLMOVE", [None, []], False),
    ],
)
def test_worker_fetches_again_unless_the_next_fetch_would_find_nothing(
    consuming, monkeypatch, command, replies, fetches_next
):
    channel, left = consuming.channels[0], iter(replies)
    monkeypatch.setattr(channel, "_parse_reply", lambda **_: next(left))
    monkeypatch.setattr(channel, "_send_fetch", lambda **_: None)
    monkeypatch.setattr(channel, "_command", command)
    assert channel._read_reply() == replies[-1]
    assert channel._fetches_next == fetches_next


def test_job_that_comes_alone_to_an_idle_worker_is_opened_by_its_fetch(
    redis_server, options, job_store, redis_client
):
    opened: list[dict] = []
    marked: list[bool] = []
    hooks = {
        "keep_opened": opened.append,
        "before_opening": lambda: marked.append(redis_client.exists(keys.aboard("w")) == 0),
    }
    consuming = Consuming(redis_server.url, options | hooks)
    ids: list[str] = []
    # A wait may end by its time just before the job comes; the fetch then opens nothing.
    while not any(opened):
        consuming.run_until(lambda: consuming.channels[0]._command == "BLMOVE")
        ids.append(submitted(job_store))
        consuming.run_until(lambda: ids[-1] in consuming.messages)
    assert list(opened[-1]) == ids[-1:]
    assert redis_client.smembers(keys.aboard("w")) == {ids[-1].encode()}
    assert marked[0]
    consuming.close()


def test_worker_with_jobs_in_hand_opens_none_by_a_fetch(
    redis_server, options, job_store, redis_client
):
    opened: list[dict] = []
    consuming = Consuming(redis_server.url, options | {"keep_opened": opened.append})
    consuming.channels[0].opens_after = None
    consuming.run_until(lambda: consuming.channels[0]._command == "BLMOVE")
    submitted(job_store)
    consuming.run_until(lambda: consuming.messages)
    assert opened == [{}]
    assert not redis_client.exists(keys.aboard("w"))
    consuming.close()


def test_worker_that_looks_for_more_hears_of_the_next_fetch_alone(consuming, job_store):
    channel, heard = consuming.channels[0], []
    consuming.run_until(lambda: channel._command == "BLMOVE")
    channel.look_for_more(lambda: heard.append(channel._command))
    # It hears of a fetch that brings nothing. BLMOVE may end 0.1 s after its time limit.
    consuming.run_until(lambda: heard)
    submitted(job_store)
    consuming.run_until(lambda: consuming.messages)
    assert heard == ["EVALSHA"]


def test_worker_that_looks_for_more_hears_of_a_refused_fetch(consuming, redis_client):
    channel, heard = consuming.channels[0], []
    consuming.run_until(lambda: channel._command == "BLMOVE")
    redis_client.config_set("min-replicas-to-write", 1)
    channel.look_for_more(lambda: heard.append(channel.is_refused))
    consuming.run_until(lambda: True in heard)


def test_overdue_reply_is_a_lost_connection(redis_server, options):
    proxy = Proxy(redis_server.port)
    consuming = Consuming(proxy.url, options)
    began_at = time.monotonic()
    consuming.run_until(lambda: consuming.channels[0]._command == "BLMOVE")
    wait_until(lambda: proxy.swallow(b"BLMOVE"))
    with pytest.raises(redis.TimeoutError):
        consuming.run_until(lambda: False)
    assert time.monotonic() - began_at > 1.5
    assert not consuming.channels[0]._in_poll
    consuming.close()
    proxy.close()


def test_nothing_is_written_to_requeue_by_age(consuming, redis_client):
    redis_client.config_set("maxmemory", 1)
    consuming.connection.transport.cycle.on_poll_init(consuming.hub.poller)
    consuming.connection.transport.cycle.maybe_restore_messages()
    assert not redis_client.exists("unacked_mutex")


@pytest.mark.parametrize("refusal", ["maxmemory", "min-replicas-to-write"])
def test_bindings_that_redis_refuses_to_renew_are_not_logged_every_second(
    consuming, redis_client, refusal, caplog
):
    redis_client.config_set(refusal, 1)
    consuming.connection.transport.cycle.on_poll_init(consuming.hub.poller)
    consuming.connection.transport.cycle.maybe_refresh_binding_expiry()
    assert caplog.records == []
