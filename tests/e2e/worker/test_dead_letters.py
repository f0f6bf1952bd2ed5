"""A real worker meets what it cannot read: it sets that one aside and scores its neighbours."""

import os
import signal
import time

import orjson
import pytest

from contract import keys
from contract.batches import Batch, Part, encode_part_payload
from contract.errors import JobUnreadable
from contract.queue_messages import decode_message, task_message
from contract.store.batches.batch_store import BatchStore
from contract.store.queue.parked_jobs import ParkedJobs
from tests.conftest import HANG_S, wait_until
from tests.contract.formats.test_releases import MESSAGE, PAYLOAD, RECORD
from tests.waiting_messages import dead_letters, num_parked, put_unbound, take, waiting
from tests.worker_process import Worker, a_job, final, submit

MARKER = b"Xylographenkraehe"


@pytest.fixture
def worker(new_worker) -> Worker:
    """A worker that is ready, on the test's Redis."""
    return new_worker().start().wait_ready()


def is_all_acknowledged(redis_client) -> bool:
    return not redis_client.hlen(keys.unacked("w@test")) and not waiting(redis_client)


def with_field(raw: bytes, place: str | None = None, **fields) -> bytes:
    """JSON `raw` with further fields at its top, or in its object `place`."""
    found = orjson.loads(raw)
    (found[place] if place else found).update(fields)
    return orjson.dumps(found)


def assert_quiet(worker: Worker) -> None:
    """The worker kept its connection and its process, and shows nothing of what it read."""
    log = worker.log.read_text()
    assert "Traceback" not in log
    assert "Connection to broker lost" not in log
    assert MARKER.decode() not in log
    assert worker.process.poll() is None


GARBAGE = {
    MARKER: "not_json",
    b"": "not_json",
    b'{"delivery_tag": "x" ' + MARKER: "not_json",
    b'["' + MARKER + b'"]': "not_an_object",
    b"{}": "wrong_fields",
    b'{"properties": {"delivery_tag": 7}}': "wrong_fields",
    task_message("a", 1, 0).replace(b'"id":"a"', b'"id":"b"'): "not_a_job",
    task_message("c", 1, 0).replace(keys.TASK.encode(), b"other.task"): "not_a_job",
    with_field(task_message("d", 1, 0), "headers", version="new"): "wrong_version",
    b"\xff\x00" * 50: "not_json",
    b"x" * 300_000: "not_json",
}


def test_garbage_in_the_queue_is_set_aside_at_once(job_store, redis_client, worker):
    put_unbound(redis_client, *GARBAGE)
    put_unbound(redis_client, b"bulk" + MARKER, priority=keys.BULK)
    sent = time.monotonic()
    assert final(job_store, submit(job_store, 10)).state == "SUCCESS"
    # Each broken message takes two writes before that, which a slow disk does one after the other.
    assert time.monotonic() - sent < 120
    wait_until(lambda: is_all_acknowledged(redis_client))
    letters = dead_letters(redis_client)
    assert {(letter.kind, letter.task_id) for letter in letters} == {("message", "")}
    found = sorted((letter.num_bytes, letter.reason) for letter in letters)
    sizes = [(len(line), reason) for line, reason in GARBAGE.items()]
    assert found == sorted([*sizes, (len(b"bulk" + MARKER), "not_json")])
    assert all(abs(letter.at - time.time()) < HANG_S for letter in letters)
    assert_quiet(worker)


def test_broken_message_is_replaced_and_its_job_scored(job_store, redis_client, new_worker):
    task_id = submit(job_store, 10)
    put_unbound(redis_client, take(redis_client)[:-1])
    worker = new_worker().start().wait_ready()
    assert final(job_store, task_id).state == "SUCCESS"
    assert final(job_store, submit(job_store, 10)).state == "SUCCESS"
    assert job_store.depth().jobs == job_store.depth().bytes == 0
    assert [letter.task_id for letter in dead_letters(redis_client)] == [task_id]
    assert_quiet(worker)


BROKEN = [
    ("payload", MARKER),
    ("payload", b"[]"),
    ("payload", b'{"num_bytes": "many"}'),
    (
        "payload",
        b'{"requests": [{"text": 5}], "num_bytes": 1, "submitted_at": 1, "deadline_at": 9e9}',
    ),
    ("record", MARKER),
    ("record", b'{"state": "' + MARKER + b'"}'),
]


def test_unreadable_jobs_end_and_their_neighbours_are_scored(
    job_store,
    redis_client,
    new_worker,
):
    first, *ids, last = [submit(job_store, 10) for _ in range(len(BROKEN) + 2)]
    for task_id, (kind, value) in zip(ids, BROKEN, strict=True):
        redis_client.set(getattr(keys, kind)(task_id), value, keepttl=True)
    worker = new_worker().start().wait_ready()
    for task_id in (first, last):
        record = final(job_store, task_id)
        assert (record.state, record.result["batch"]["texts"]) == ("SUCCESS", 2)
    for task_id in ids:
        assert final(job_store, task_id).error["code"] == JobUnreadable.code
    letters = [(letter.kind, letter.task_id) for letter in dead_letters(redis_client)]
    assert sorted(letters) == sorted(
        (kind, task_id) for task_id, (kind, _) in zip(ids, BROKEN, strict=True)
    )
    assert job_store.depth().jobs == job_store.depth().bytes == 0
    wait_until(lambda: is_all_acknowledged(redis_client))
    assert_quiet(worker)


def replace_message(redis_client, change) -> None:
    """Change the message that would be fetched next."""
    put_unbound(redis_client, change(take(redis_client)))


def of_release_n(raw: bytes, task_id: str) -> bytes:
    """A frozen payload, record or message of release 0.1.0, for this job and this time."""
    for name in (b"id", b"task_id", b"delivery_tag"):
        raw = raw.replace(b'"%s":"id"' % name, b'"%s":"%s"' % (name, task_id.encode()))
    return raw.replace(b'"deadline_at":1769861400.25', b'"deadline_at":%d' % (time.time() + 600))


def test_jobs_of_the_releases_before_and_after_are_scored_together(
    job_store,
    redis_client,
    new_worker,
):
    before, after = submit(job_store, 5), submit(job_store, 10)
    redis_client.set(keys.payload(before), of_release_n(PAYLOAD, before), keepttl=True)
    redis_client.set(keys.record(before), of_release_n(RECORD, before), keepttl=True)
    take(redis_client)
    message = take(redis_client)
    for key in (keys.payload(after), keys.record(after)):
        later = with_field(redis_client.get(key), version="1.99", temperature={"deep": [7]})
        redis_client.set(key, later, keepttl=True)
    later = {"body": "???", "content-type": "later/type", "later": [1]}
    message = with_field(with_field(message, **later), "headers", version="1.99", expires="soon")
    put_unbound(redis_client, of_release_n(MESSAGE, before), message)
    worker = new_worker().start().wait_ready()
    records = [final(job_store, task_id) for task_id in (before, after)]
    assert [record.result["num_bytes"] for record in records] == [5, 10]
    assert [record.result["batch"]["texts"] for record in records] == [2, 2]
    assert dead_letters(redis_client) == []
    assert_quiet(worker)


def test_part_of_a_batch_that_cannot_be_read_ends_its_lines_alone(
    job_store,
    redis_client,
    settings,
    new_worker,
):
    batches = BatchStore(redis_client, settings, job_store)
    batch_id = batches.new_id()
    parts = [
        (Part(0, 2, 20), a_job(10, 10)),
        (Part(2, 1, 10), a_job(10)),
        (Part(3, 1, 5), a_job(5)),
    ]
    batches.store_parts(batch_id, parts)
    now = time.time()
    batch = Batch(batch_id, 4, 35, 3, created_at=now, deadline_at=now + HANG_S)
    batches.accept(batch, work_bytes=35)
    redis_client.hset(keys.batch_texts(batch_id), 0, MARKER)
    broken = encode_part_payload(a_job(10))[:-3]
    redis_client.hset(keys.batch_texts(batch_id), 2, broken)
    redis_client.set(keys.record(f"{batch_id}.2"), MARKER)
    worker = new_worker().start().wait_ready()
    wait_until(lambda: batches.read(batch_id).is_final)
    ended = batches.read(batch_id)
    assert (ended.completed, ended.failed) == (1, 3)
    assert {letter.task_id for letter in dead_letters(redis_client)} == {
        f"{batch_id}.0",
        f"{batch_id}.2",
    }
    assert redis_client.hlen(keys.LIVE_BATCHES) == 0
    assert_quiet(worker)
    batches.erase(batch_id)
    assert dead_letters(redis_client) == []


def test_jobs_of_a_newer_release_wait_and_others_go_on(
    job_store,
    redis_client,
    new_worker,
):
    ids = [submit(job_store, 10) for _ in range(3)]
    put_unbound(redis_client, with_field(take(redis_client), "headers", version="2.0"))
    redis_client.set(keys.payload(ids[1]), b'{"version": "2.0", "texts": []}', keepttl=True)
    redis_client.set(keys.record(ids[2]), b'{"version": "2.0", "is": {"status": 7}}')
    worker = new_worker().start().wait_ready()
    assert final(job_store, submit(job_store, 10)).state == "SUCCESS"
    wait_until(lambda: num_parked(redis_client) == len(ids))
    wait_until(lambda: is_all_acknowledged(redis_client))
    assert dead_letters(redis_client) == []
    assert job_store.depth().jobs == len(ids)
    worker.send(signal.SIGTERM)
    assert worker.wait_exit() == os.EX_OK
    # A worker of the newer release finds them in the queue.
    ParkedJobs(redis_client, major=2).take_back()
    assert num_parked(redis_client) == 0
    found = [orjson.loads(each) for each in waiting(redis_client)]
    assert {each["properties"]["delivery_tag"] for each in found} == set(ids)


def test_garbage_of_a_dead_worker_is_set_aside_by_its_successor(redis_client, new_worker):
    """It died between the fetch and the first look."""
    redis_client.hset(keys.unacked("w@test"), "garbage:1", b"[" + MARKER + b', "", "evascore"]')
    redis_client.zadd(keys.unacked_index("w@test"), {"garbage:1": time.time()})
    worker = new_worker().start().wait_ready()
    (letter,) = wait_until(lambda: dead_letters(redis_client))
    assert letter.num_bytes == len(MARKER)
    wait_until(lambda: is_all_acknowledged(redis_client))
    assert_quiet(worker)


def test_job_that_kills_workers_while_it_is_opened_fails_and_its_neighbours_succeed(
    job_store,
    redis_client,
    new_worker,
):
    """The worker dies with the job aboard: here it is stopped and killed while it opens."""
    neighbours = [submit(job_store, 10) for _ in range(3)]
    killer = submit(job_store, 10)
    messages = {}
    while (raw := take(redis_client)) is not None:
        message = orjson.loads(raw)
        message["properties"]["delivery_info"]["redelivered"] = True
        messages[decode_message(raw).task_id] = orjson.dumps(message)
    for task_id in (killer, *neighbours):
        redis_client.hset(keys.crashes(task_id), "deaths", 2)
    put_unbound(redis_client, *(messages[task_id] for task_id in neighbours))
    # What a worker leaves that died while it opened the killer, alone because of two crashes.
    message = messages[killer]
    redis_client.hset(keys.unacked("w@test"), killer, b"[" + message + b', "", "evascore"]')
    redis_client.zadd(keys.unacked_index("w@test"), {killer: time.time()})
    redis_client.sadd(keys.aboard("w@test"), killer)
    new_worker().start().wait_ready()
    assert final(job_store, killer).error["code"] == "poison_job"
    assert {final(job_store, each).state for each in neighbours} == {"SUCCESS"}


def test_worker_that_loses_every_connection_reconnects_more_and_more_rarely(
    job_store, redis_client, worker
):
    def cut() -> bool:
        # Not earlier: only a connection that was used has a delay after it.
        if any(each["cmd"] == "blmove" for each in redis_client.client_list()):
            redis_client.client_kill_filter(_type="normal", skipme=True)
        found = delays_s(worker)
        # On a busy machine the next connection may come so late that the delays start again.
        return any(found[at : at + 3] == [0.25, 0.5, 1] for at in range(len(found)))

    wait_until(cut, timeout_s=HANG_S)
    assert final(job_store, submit(job_store, 10)).state == "SUCCESS"


def delays_s(worker: Worker) -> list[float]:
    """The waits before the worker used a new connection."""
    # The last line may be half written.
    lines = worker.log.read_text().rpartition("\n")[0].splitlines()
    return [orjson.loads(line)["delay_s"] for line in lines if "reconnecting_slowly" in line]
