"""Jobs whose message is lost end at their deadline, and nothing of them stays in the counts."""

import time

import orjson
import pytest
import redis

from contract import keys
from contract.batches import Batch, Part, PartId, pieces_of_lines
from contract.errors import (
    BrokerUnavailable,
    JobCancelled,
    JobExpired,
    JobUnreadable,
    PoisonJob,
)
from contract.messages import Job
from contract.queue_messages import decode_message
from contract.store.admission.outcomes import QueueDepth
from contract.store.batches.batch_queue import BatchQueue
from contract.store.batches.batch_store import BatchStore
from contract.store.jobs.job_store import JobStore
from contract.worker_status import WorkerStatus
from tests.waiting_messages import clear, dead_letters, num_parked, take, waiting
from worker.process.registration import Registration
from worker.process.request_ids import RequestIds
from worker.queue.intake import Intake
from worker.recovery.overdue import GRACE_S, Overdue
from worker.recovery.upkeep import Upkeep
from worker.scoring.outcomes import lost_ending

DEADLINE_S = 60
WORKER = "w"
STATUS = WorkerStatus(name=WORKER, state="ready", model={"name": "mine", "fingerprint": "0" * 12})


def submit(store: JobStore) -> str:
    now = time.time()
    return store.submit(Job([{"text": "ab"}], 2, now, now + DEADLINE_S, client="c")).task_id


def submit_batch(batches: BatchStore, queue: BatchQueue, num_parts: int = 1) -> str:
    now = time.time()
    batch_id = batches.new_id()
    requests = [{"text": "x", "custom_id": str(number)} for number in range(2)]
    deadline_at = now + DEADLINE_S
    job = Job(requests, 2, now, deadline_at, is_single=False, priority=keys.BULK)
    batches.store_parts(batch_id, [(Part(2 * n, 2, 128), job) for n in range(num_parts)])
    sizes = 2 * num_parts, 2 * num_parts, num_parts
    batch = Batch(batch_id, *sizes, now, deadline_at, client="c")
    batches.accept(batch, work_bytes=128 * num_parts)
    queue.publish(batch_id)
    return batch_id


@pytest.fixture
def batches(redis_client, settings, job_store) -> BatchStore:
    return BatchStore(redis_client, settings, job_store)


@pytest.fixture
def queue(redis_client, settings) -> BatchQueue:
    return BatchQueue(redis_client, settings)


def look(redis_client, store: JobStore, after_s: float) -> None:
    """Look at all jobs, as a worker does this many seconds from now."""
    overdue = Overdue(redis_client, store, clock=lambda: time.time() + after_s)
    for _ in range(3):
        overdue.end_some()


def test_job_whose_message_is_lost_expires(job_store, redis_client):
    task_id = submit(job_store)
    clear(redis_client)
    look(redis_client, job_store, DEADLINE_S)
    assert job_store.read(task_id).state == "QUEUED"
    look(redis_client, job_store, DEADLINE_S + GRACE_S + 1)
    record = job_store.read(task_id)
    assert (record.state, record.error["code"]) == ("REVOKED", JobExpired.code)
    assert job_store.depth() == QueueDepth(0, 0)
    assert not redis_client.exists(keys.payload(task_id))


def test_job_that_a_worker_holds_is_left_to_it(job_store, redis_client):
    task_id = submit(job_store)
    redis_client.sadd(keys.WORKERS, WORKER)
    redis_client.hset(keys.unacked(WORKER), task_id, "[]")
    look(redis_client, job_store, DEADLINE_S + GRACE_S + 1)
    assert job_store.read(task_id).state == "QUEUED"


def test_job_whose_record_is_gone_leaves_the_counts(job_store, redis_client):
    task_id = submit(job_store)
    redis_client.delete(keys.record(task_id))
    look(redis_client, job_store, 0)
    assert job_store.depth() == QueueDepth(0, 0)


def test_job_whose_record_cannot_be_read_ends_with_a_dead_letter(job_store, redis_client):
    task_id = submit(job_store)
    payload = redis_client.get(keys.payload(task_id))
    redis_client.set(keys.record(task_id), b"broken", keepttl=True)
    clear(redis_client)
    look(redis_client, job_store, 0)
    assert job_store.read(task_id).error["code"] == JobUnreadable.code
    assert job_store.depth() == QueueDepth(0, 0)
    (letter,) = dead_letters(redis_client)
    assert (letter.kind, letter.task_id) == ("record", task_id)
    assert redis_client.hget(keys.DEAD_LETTER_RAWS, letter.id) == payload


def test_part_whose_message_is_lost_expires_with_its_lines(job_store, redis_client, batches, queue):
    batch_id = submit_batch(batches, queue)
    clear(redis_client)
    look(redis_client, job_store, DEADLINE_S)
    assert not batches.read(batch_id).is_final
    look(redis_client, job_store, DEADLINE_S + GRACE_S + 1)
    batch = batches.read(batch_id)
    assert (batch.status, batch.failed) == ("expired", 2)
    ((_, lines),) = batches.results(batch_id, 0, num_lines=2, max_bytes=10**6)
    assert lines
    for name in (keys.LIVE_BATCHES, keys.LIVE_LINES, keys.BULK_LOAD, keys.BATCH_CLIENTS):
        assert not redis_client.exists(name)


def test_every_worker_looks(job_store, redis_client, settings, monkeypatch):
    task_id = submit(job_store)
    clear(redis_client)
    upkeep = Upkeep(redis_client, job_store, settings, Registration(job_store.models, STATUS))
    monkeypatch.setattr(upkeep._overdue, "_clock", lambda: time.time() + DEADLINE_S + GRACE_S + 1)
    upkeep.run()
    assert job_store.read(task_id).state == "REVOKED"


def test_cancelling_of_a_batch_that_stopped_half_way_is_finished(
    job_store, redis_client, batches, queue, monkeypatch
):
    batch_id = submit_batch(batches, queue, num_parts=20)
    end_parts = BatchStore._cancel_parts

    def die_at_the_second_group(*args):
        monkeypatch.setattr(BatchStore, "_cancel_parts", _lose_redis)
        end_parts(*args)

    monkeypatch.setattr(BatchStore, "_cancel_parts", die_at_the_second_group)
    with pytest.raises(BrokerUnavailable):
        batches.cancel(batch_id)
    held = str(PartId(batch_id, 38))
    redis_client.sadd(keys.WORKERS, WORKER)
    redis_client.hset(keys.unacked(WORKER), held, "[]")
    # The web server may be at it still.
    look(redis_client, job_store, 0)
    assert (batches.read(batch_id).status, batches.read(batch_id).failed) == ("cancelling", 32)
    look(redis_client, job_store, GRACE_S + 1)
    assert batches.read(batch_id).failed == 38
    redis_client.delete(keys.unacked(WORKER))
    look(redis_client, job_store, GRACE_S + 1)
    assert (batches.read(batch_id).status, batches.read(batch_id).failed) == ("cancelled", 40)
    found = batches.results(batch_id, 0, num_lines=40, max_bytes=10**6)
    lines = b"".join(piece for _, stored in found for piece in pieces_of_lines(stored))
    assert lines.count(JobCancelled.code.encode()) == lines.count(b'"custom_id"') == 40


def _lose_redis(*_) -> None:
    raise redis.ConnectionError("the web server was killed")


def test_parked_part_of_an_erased_batch_is_dropped_at_the_end_of_its_time(
    job_store, redis_client, batches, queue, settings
):
    part = str(PartId(submit_batch(batches, queue), 0))
    raw = take(redis_client, keys.BULK).decode()
    redis_client.hset(keys.unacked(WORKER), part, f'[{raw}, "", "{keys.QUEUE}"]')
    job_store.park(part, 2, WORKER)
    (message,) = redis_client.zrange(keys.parked(2), 0, -1)
    redis_client.zadd(keys.parked(2), {message: 1.0})
    batches.erase(part.partition(".")[0])
    Upkeep(redis_client, job_store, settings, Registration(job_store.models, STATUS)).run()
    assert num_parked(redis_client) == 0


def test_hopeless_part_of_an_erased_batch_is_acknowledged(job_store, redis_client, batches, queue):
    batch_id = submit_batch(batches, queue)
    part = str(PartId(batch_id, 0))
    redis_client.hset(keys.unacked(WORKER), part, "[]")
    batches.erase(batch_id)
    error = PoisonJob("Three workers died.", num_crashes=3)
    ending = lost_ending(part, job_store.facts(part), error)
    assert job_store.conclude([ending], WORKER) == [""]
    assert not redis_client.exists(keys.unacked(WORKER))
    assert not redis_client.keys(f"*{batch_id}*")


def test_upkeep_goes_on_where_redis_refuses_one_step(
    job_store, redis_client, settings, monkeypatch
):
    task_id = submit(job_store)
    upkeep = Upkeep(redis_client, job_store, settings, Registration(job_store.models, STATUS))
    monkeypatch.setattr(upkeep._overdue, "_clock", lambda: time.time() + DEADLINE_S + GRACE_S + 1)
    # No hash, so that the first steps are refused.
    redis_client.set(keys.MODELS, "broken")
    upkeep.run()
    assert job_store.read(task_id).state == "REVOKED"


CUTS = {
    "its first half": lambda raw: raw[: len(raw) // 2],
    "its last half": lambda raw: raw[len(raw) // 2 :],
    "all but its end": lambda raw: raw[:-1],
    "another tag": lambda raw: raw.replace(b'"delivery_tag":"', b'"delivery_tag":"x'),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("kind", ["job", "part"])
def test_broken_message_that_shows_its_job_is_replaced(
    job_store, redis_client, batches, queue, cut, kind
):
    if kind == "job":
        task_id, priority = submit(job_store), keys.INTERACTIVE
    else:
        task_id, priority = str(PartId(submit_batch(batches, queue), 0)), keys.BULK
    (raw,) = waiting(redis_client, priority)
    clear(redis_client)
    # The fetch takes the delivery tag where it can be read.
    tag = task_id if cut(raw) == raw[:-1] else "garbage:1"
    redis_client.hset(keys.unacked(WORKER), tag, orjson.dumps(["..."]))
    assert (
        Intake(redis_client, job_store, WORKER, RequestIds()).read_message(tag, cut(raw), False)
        is None
    )
    (message,) = waiting(redis_client, priority)
    claim = decode_message(message)
    assert (claim.task_id, claim.num_bytes) == (task_id, decode_message(raw).num_bytes)
    assert not redis_client.exists(keys.unacked(WORKER))
    assert [letter.task_id for letter in dead_letters(redis_client)] == [task_id]


def test_broken_message_and_broken_record_end_the_job(job_store, redis_client):
    task_id = submit(job_store)
    (raw,) = waiting(redis_client)
    clear(redis_client)
    redis_client.set(keys.record(task_id), b"broken", keepttl=True)
    redis_client.hset(keys.unacked(WORKER), "garbage:1", orjson.dumps(["..."]))
    Intake(redis_client, job_store, WORKER, RequestIds()).read_message(
        "garbage:1", raw[:-300], False
    )
    assert job_store.read(task_id).error["code"] == JobUnreadable.code
    assert job_store.depth() == QueueDepth(0, 0)
    assert not redis_client.exists(keys.unacked(WORKER))


def test_broken_message_of_an_ended_job_is_dropped(job_store, redis_client):
    task_id = submit(job_store)
    (raw,) = waiting(redis_client)
    clear(redis_client)
    job_store.cancel(task_id)
    redis_client.hset(keys.unacked(WORKER), "garbage:1", orjson.dumps(["..."]))
    Intake(redis_client, job_store, WORKER, RequestIds()).read_message(
        "garbage:1", raw[:-300], False
    )
    assert waiting(redis_client) == []
    assert not redis_client.exists(keys.unacked(WORKER))
