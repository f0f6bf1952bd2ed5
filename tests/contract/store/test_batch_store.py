"""Batches on a real Redis: accepted whole or not at all, ended once, forgotten in time."""

import time
from dataclasses import replace

import pytest
import redis

from contract import keys
from contract.batches import (
    Batch,
    Part,
    PartId,
    failed_part_results,
    is_success_line,
    part_id,
    part_results,
    pieces_of_lines,
)
from contract.errors import BrokerUnavailable, JobExpired, JobGone, ScoringFailed
from contract.messages import Job, failure_record, success_record
from contract.settings import load_settings
from contract.store.admission.outcomes import QueueFull
from contract.store.batches.batch_queue import BatchQueue
from contract.store.batches.batch_store import BatchStore
from contract.store.connection.broker import connect
from contract.store.jobs.endings import Ending
from contract.store.jobs.job_store import JobStore

BULK_LIST = keys.waiting(keys.UNBOUND, keys.BULK)


@pytest.fixture
def batches(redis_client, job_store, settings):
    return BatchStore(redis_client, settings, job_store)


def a_job(num_lines: int, deadline_at: float) -> Job:
    requests = [{"text": "x", "custom_id": str(n)} for n in range(num_lines)]
    return Job(requests, num_lines, time.time(), deadline_at, is_single=False, priority=keys.BULK)


def received(batches: BatchStore, *lengths: int, deadline_s: float = 60) -> Batch:
    """A batch whose parts, of so many lines of one byte, are stored and not accepted yet."""
    now = time.time()
    batch_id = batches.new_id()
    first = 0
    for length in lengths:
        part = Part(first, length, length)
        batches.store_parts(batch_id, [(part, a_job(length, now + deadline_s))])
        first += length
    return Batch(batch_id, first, first, len(lengths), now, now + deadline_s)


def accepted(batches: BatchStore, *lengths: int, client: str = "", **options: float) -> str:
    return accept(batches, replace(received(batches, *lengths, **options), client=client))


def accept(batches: BatchStore, batch: Batch) -> str:
    return batches.accept(batch, work_bytes=batch.num_bytes).batch_id


def end_part(job_store: JobStore, batch_id: str, first: int, error=None) -> str:
    """End a part as a worker does; the state that it is in then."""
    part = PartId(batch_id, first)
    (opened,) = job_store.open_jobs([str(part)])
    if opened.job is None:
        return "over"
    requests, facts, num_bytes = opened.job.requests, opened.job.facts(), opened.job.num_bytes
    if error is None:
        record = success_record(str(part), None, facts, time.time())
        results = part_results(part, requests, [{"v": 1}] * len(requests), num_bytes)
    else:
        record = failure_record(str(part), error, facts, time.time())
        results = failed_part_results(part, requests, error, num_bytes)
    return job_store.conclude([Ending(str(part), record, results=results)])[0]


def progress(batches: BatchStore, batch_id: str) -> tuple[str, int, int]:
    return batches.read(batch_id).progress


def test_part_names_its_batch_and_its_first_line():
    assert part_id(str(PartId("abc", 512))) == PartId("abc", 512)
    assert part_id("abc") is part_id("abc.") is part_id("abc.x") is None


def test_upload_is_unknown_until_it_is_accepted(batches, redis_client):
    batch = received(batches, 2, 1)
    with pytest.raises(JobGone):
        batches.read(batch.id)
    assert redis_client.llen(BULK_LIST) == 0
    assert batches.load().num_bytes == 0
    accept(batches, batch)
    assert progress(batches, batch.id) == ("in_progress", 0, 0)
    assert redis_client.llen(BULK_LIST) == 2
    assert batches.load().num_bytes == 3


def test_upload_that_nobody_goes_on_with_is_forgotten(redis_server):
    settings = load_settings(
        {"EVASCORE_REDIS_URL": redis_server.url, "EVASCORE_WEB_TIMEOUT_S": "50"}
    )
    with connect(settings) as client:
        batches = BatchStore(client, settings, JobStore(client, settings))
        batch = received(batches, 2)
        names = [keys.batch_texts(batch.id), keys.batch_parts(batch.id)]
        assert set(client.keys("*batch*")) == {name.encode() for name in names}
        for name in names:
            assert 90 < client.ttl(name) <= 100
            client.expire(name, 50)
        batches.store_parts(batch.id, [])
        assert all(client.ttl(name) > 90 for name in names)


def test_upload_of_which_a_part_was_lost_is_not_accepted(batches, redis_client):
    batch = received(batches, 2, 1)
    redis_client.hdel(keys.batch_texts(batch.id), "0")
    with pytest.raises(BrokerUnavailable):
        accept(batches, batch)
    assert redis_client.llen(BULK_LIST) == 0


def test_accepting_twice_is_accepting_once(batches, redis_client):
    batch = received(batches, 2, 1)
    accept(batches, batch)
    accept(batches, batch)
    assert redis_client.llen(BULK_LIST) == 2
    assert batches.load().num_bytes == 3


def test_batches_together_are_limited_in_bytes(redis_server):
    limits = {"max_bulk_bytes": 4, "max_upload_bytes": 4, "max_body_bytes": 4, "max_text_bytes": 4}
    settings = load_settings(
        {
            "EVASCORE_REDIS_URL": redis_server.url,
            **{f"EVASCORE_{name.upper()}": str(value) for name, value in limits.items()},
        }
    )
    with connect(settings) as client:
        store = JobStore(client, settings)
        batches = BatchStore(client, settings, store)
        first = accepted(batches, 3)
        with pytest.raises(QueueFull) as raised:
            accepted(batches, 2)
        assert raised.value.depth.bytes == 3
        end_part(store, first, 0)
        accepted(batches, 2)


def test_text_of_a_batch_that_expired_unscored_counts_no_more(batches, redis_client):
    batch_id = accepted(batches, 3)
    redis_client.delete(keys.batch(batch_id))
    assert batches.load().num_bytes == 0


def test_batch_left_unqueued_by_a_dying_server_is_queued_by_the_next(
    batches, job_store, settings, monkeypatch, redis_client
):
    monkeypatch.setattr("contract.store.batches.batch_queue.GROUP_PARTS", 2)

    class Died(Exception):
        pass

    original, groups = BatchQueue._publish_group, []

    def dying(queue, batch, num_published, members):
        groups.append(num_published)
        if len(groups) == 2:
            raise Died
        return original(queue, batch, num_published, members)

    batch = received(batches, 1, 1, 1, 1, 1)
    monkeypatch.setattr(BatchQueue, "_publish_group", dying)
    with pytest.raises(Died):
        accept(batches, batch)
    assert progress(batches, batch.id)[0] == "validating"
    monkeypatch.setattr(BatchQueue, "_publish_group", original)
    repairer = BatchQueue(redis_client, settings)
    repairer.publish_left_behind()
    assert redis_client.llen(BULK_LIST) == 2  # the dying one may be at work still
    redis_client.delete(keys.publishing(batch.id))
    for _ in range(2):
        repairer.publish_left_behind()
    assert redis_client.llen(BULK_LIST) == 5
    assert progress(batches, batch.id)[0] == "in_progress"
    assert redis_client.smembers(keys.UNPUBLISHED) == set()


def test_accepted_batch_that_redis_does_not_queue_is_queued_by_a_worker(
    batches, redis_client, settings, monkeypatch
):
    def refuse(*_):
        raise redis.ResponseError("MISCONF the disk is full")

    batch = received(batches, 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(BatchQueue, "_publish_group", refuse)
        assert accept(batches, batch) == batch.id
    assert progress(batches, batch.id)[0] == "validating"
    redis_client.delete(keys.publishing(batch.id))
    BatchQueue(redis_client, settings).publish_left_behind()
    assert progress(batches, batch.id)[0] == "in_progress"


def test_batch_that_redis_cannot_queue_holds_up_no_other_one(batches, redis_client, settings):
    stuck = [f"stuck{number}" for number in range(3)]
    for batch_id in stuck:
        redis_client.set(keys.batch(batch_id), "no hash")
    batch = received(batches, 1)
    accept(batches, batch)
    redis_client.hset(keys.batch(batch.id), "num_published", 0)
    redis_client.sadd(keys.UNPUBLISHED, batch.id, *stuck)
    BatchQueue(redis_client, settings).publish_left_behind()
    assert redis_client.smembers(keys.UNPUBLISHED) == {each.encode() for each in stuck}


def test_counts_grow_once_per_part_and_the_last_ends_the_batch(
    batches, job_store, settings, redis_client
):
    batch_id = accepted(batches, 2, 1)
    assert end_part(job_store, batch_id, 0) == "SUCCESS"
    assert end_part(job_store, batch_id, 0) == "over"
    assert progress(batches, batch_id) == ("in_progress", 2, 0)
    assert end_part(job_store, batch_id, 2, ScoringFailed("no")) == "FAILURE"
    batch = batches.read(batch_id)
    assert batch.progress == ("completed", 2, 1)
    assert batch.expires_at == pytest.approx(batch.ended_at + settings.result_ttl_s)
    for name in (keys.batch(batch_id), keys.batch_results(batch_id), keys.batch_parts(batch_id)):
        assert redis_client.ttl(name) == pytest.approx(settings.result_ttl_s, abs=5)
    assert redis_client.exists(keys.batch_texts(batch_id)) == 0
    assert batches.load().num_bytes == 0


def test_text_of_a_part_is_deleted_the_moment_it_ends(batches, job_store, redis_client):
    batch_id = accepted(batches, 2, 1)
    end_part(job_store, batch_id, 2)
    assert redis_client.hkeys(keys.batch_texts(batch_id)) == [b"0"]


def test_batch_with_lines_past_its_deadline_is_expired(batches, job_store):
    batch_id = accepted(batches, 2, 1)
    end_part(job_store, batch_id, 0)
    end_part(job_store, batch_id, 2, JobExpired("late"))
    assert progress(batches, batch_id) == ("expired", 2, 1)
    parts = [part for _, part in batches.results(batch_id, 0, 9, 10_000)]
    lines = b"".join(b"".join(pieces_of_lines(part)) for part in parts).splitlines(keepends=True)
    assert [is_success_line(line) for line in lines[:2]] == [True, True]


def test_results_are_given_up_to_the_first_part_that_is_missing(batches, job_store):
    batch_id = accepted(batches, 2, 1, 2)
    end_part(job_store, batch_id, 0)
    end_part(job_store, batch_id, 3)
    found = batches.results(batch_id, 0, 100, 10_000)
    assert [part for part, _ in found] == [Part(0, 2, 2)]
    end_part(job_store, batch_id, 2)
    assert [part.first for part, _ in batches.results(batch_id, 1, 100, 10_000)] == [0, 2, 3]
    assert [part.first for part, _ in batches.results(batch_id, 2, 1, 10_000)] == [2]
    assert batches.results(batch_id, 0, 100, 10) == [(Part(0, 2, 2), None)]
    (_, stored), *_ = batches.results(batch_id, 0, 100, 10_000)
    assert list(batches.result_pieces(batch_id, Part(0, 2, 2))) == list(pieces_of_lines(stored))
    two = 2 * len(stored)
    assert [part.first for part, _ in batches.results(batch_id, 0, 100, two)] == [0, 2]
    batches.erase(batch_id)
    with pytest.raises(JobGone):
        list(batches.result_pieces(batch_id, Part(0, 2, 2)))


def test_results_reach_over_many_parts(batches, job_store):
    batch_id = accepted(batches, *[1] * 50)
    for first in range(50):
        end_part(job_store, batch_id, first)
    assert [part.first for part, _ in batches.results(batch_id, 7, 100, 10**6)] == [*range(7, 50)]


def test_part_of_an_erased_batch_ends_without_a_trace(batches, job_store, redis_client):
    before = set(redis_client.keys())
    batch_id = accepted(batches, 1)
    (opened,) = job_store.open_jobs([f"{batch_id}.0"])
    batches.erase(batch_id)
    results = part_results(PartId(batch_id, 0), opened.job.requests, [{}], 1)
    ending = Ending(f"{batch_id}.0", success_record("", None, {}, time.time()), results=results)
    assert job_store.conclude([ending]) == [""]
    redis_client.delete(BULK_LIST, keys.turns(keys.UNBOUND, keys.BULK))
    assert set(redis_client.keys()) - before <= {
        keys.ID_SECRET.encode(),
        keys.FORGETTABLE_SINCE.encode(),
    }


def limited_batches(redis_server, client, **limits) -> tuple[JobStore, BatchStore]:
    variables = {f"EVASCORE_{name.upper()}": str(value) for name, value in limits.items()}
    settings = load_settings({"EVASCORE_REDIS_URL": redis_server.url, **variables})
    store = JobStore(client, settings)
    return store, BatchStore(client, settings, store)


def test_batches_are_limited_in_number(redis_server, redis_client):
    store, batches = limited_batches(redis_server, redis_client, max_queued_batches=3)
    first, _ = accepted(batches, 1), accepted(batches, 1)
    with pytest.raises(QueueFull) as raised:
        accepted(batches, 1)
    assert raised.value.is_share
    assert raised.value.depth.jobs == 2
    accepted(batches, 1, client="other")
    with pytest.raises(QueueFull) as raised:
        accepted(batches, 1, client="third")
    assert not raised.value.is_share
    assert raised.value.depth.jobs == 3
    end_part(store, first, 0)
    accepted(batches, 1, client="third")
    assert batches._client.hget(keys.BULK_CLIENTS, "batches:") == b"1"


def load_of(batches: BatchStore) -> tuple[dict, int, int]:
    load = batches.load()
    statuses = {status: count for status, count in load.statuses.items() if count}
    return statuses, load.num_lines, load.num_bytes


def test_load_follows_each_change_of_a_batch(batches, job_store, redis_client, monkeypatch):
    first, second = accepted(batches, 2, 1), accepted(batches, 4)
    assert load_of(batches) == ({"in_progress": 2}, 7, 7)
    end_part(job_store, first, 0)
    assert load_of(batches) == ({"in_progress": 2}, 5, 5)
    end_part(job_store, first, 2, ScoringFailed("no"))
    assert load_of(batches) == ({"in_progress": 1}, 4, 4)
    # A worker has the part in hand, so the batch goes on until that ends.
    monkeypatch.setattr(batches, "_cancel_parts", lambda *_: None)
    for _ in range(2):
        batches._cancel(keys=[keys.batch(second), keys.CANCELLING], args=[1.0, second])
    assert load_of(batches) == ({"cancelling": 1}, 4, 4)
    end_part(job_store, second, 0)
    assert load_of(batches) == ({}, 0, 0)
    third = accepted(batches, 3)
    for _ in range(2):
        batches.erase(third)
    assert load_of(batches) == ({}, 0, 0)
    assert not redis_client.exists(keys.LIVE_LINES, keys.LIVE_BATCHES, keys.CANCELLING)


def test_batch_that_is_not_queued_whole_is_validating(batches, monkeypatch):
    monkeypatch.setattr(BatchQueue, "publish", lambda *_: None)
    accepted(batches, 2)
    assert load_of(batches) == ({"validating": 1}, 2, 2)


def test_many_batches_that_expired_unscored_are_all_forgotten(batches, redis_client):
    ids = [accepted(batches, 2) for _ in range(80)]
    redis_client.delete(*map(keys.batch, ids[:70]))
    for _ in range(30):
        load = load_of(batches)
    assert load == ({"in_progress": 10}, 20, 20)


def test_batch_of_an_older_web_server_ends_without_lowering_the_sums(
    batches, job_store, redis_client
):
    older, newer = accepted(batches, 2), accepted(batches, 3)
    redis_client.hdel(keys.LIVE_LINES, older)
    redis_client.hincrby(keys.BULK_LOAD, "bytes", -2)
    redis_client.hincrby(keys.BULK_LOAD, "lines", -2)
    end_part(job_store, older, 0)
    assert load_of(batches) == ({"in_progress": 1}, 3, 3)
    end_part(job_store, newer, 0)
    assert load_of(batches) == ({}, 0, 0)


def test_load_asks_redis_for_as_much_with_many_batches_as_with_few(batches, redis_client):
    def sent_commands() -> int:
        before = redis_client.info("commandstats")
        batches.load()
        after = redis_client.info("commandstats")
        return sum(
            stat["calls"] - before.get(name, {"calls": 0})["calls"]
            for name, stat in after.items()
            if name not in ("cmdstat_info", "cmdstat_command")
        )

    accepted(batches, 1)
    for _ in range(15):
        accepted(batches, 1)
    few = sent_commands()
    facts = redis_client.hgetall(keys.batch(accepted(batches, 1)))
    with redis_client.pipeline(transaction=False) as pipe:
        for number in range(10_000):
            pipe.hset(keys.batch(f"b{number}"), mapping=facts)
            pipe.hset(keys.LIVE_BATCHES, f"b{number}", 1).hset(keys.LIVE_LINES, f"b{number}", 1)
        pipe.execute()
    assert sent_commands() == few
    assert batches.load().num_batches == 10_017
