"""Records and results that a client has stored: they count in its share of the room in Redis."""

import time
from dataclasses import replace

import pytest
import redis

from app.service.recent_workers import RecentWorkers
from app.service.retry_after import MAX_RETRY_S, RetryEstimate
from contract import keys
from contract.batches import PartId
from contract.errors import JobUnreadable
from contract.messages import encode_payload, failure_record
from contract.settings import Settings, load_settings
from contract.store.admission.outcomes import NoRoom
from contract.store.batches.file_store import FileStore
from contract.store.connection.scripts import script_text
from contract.store.jobs.endings import Ending
from contract.store.jobs.job_store import JobStore
from contract.store.queue.dead_letters import DeadLetters
from tests.contract.store.test_job_store import a_job, scored
from tests.contract.store.test_promises import Batches

FLOOD, OTHER = "192.0.2.7", "key:other"
RESULT = b"x" * 200_000


def stored(client: redis.Redis, name: str = FLOOD) -> int:
    """The bytes that are counted for a client."""
    return sum(int(client.get(key)) for key in client.keys(f"{keys.STORED}{name}:*"))


def in_redis(client: redis.Redis, *task_ids: str) -> int:
    """The bytes of the records and results of jobs."""
    names = [kind(each) for each in task_ids for kind in (keys.record, keys.result)]
    return sum(client.strlen(name) for name in names)


def end_one(client: redis.Redis, settings: Settings, name: str = FLOOD) -> str:
    """Have a job accepted, scored and its result stored apart; its ID."""
    # A new store has no sample of the memory yet.
    store, job = JobStore(client, settings), a_job(client=name, result_bytes=2 * len(RESULT))
    task_id = store.submit(job).task_id
    ending = replace(scored(task_id, job), stored_result=RESULT)
    for _ in range(2):
        store.conclude([ending])
    return task_id


def with_room(client: redis.Redis, num_bytes: int) -> Settings:
    """Settings with which so many bytes of Redis are free."""
    used = client.info("memory")["used_memory"]
    return load_settings({"EVASCORE_MAX_REDIS_BYTES": str(used + num_bytes)})


def fill(client: redis.Redis, settings: Settings, name: str) -> tuple[list[str], NoRoom]:
    """Have jobs of a client scored until one is refused; their IDs, and the refusal."""
    ended = []
    while True:
        try:
            ended.append(end_one(client, settings, name))
        except NoRoom as refusal:
            return ended, refusal


def test_client_that_waits_for_each_result_leaves_room_for_others(redis_client):
    settings = with_room(redis_client, 8_000_000)
    ended, refusal = fill(redis_client, settings, FLOOD)
    assert refusal.is_share
    assert refusal.promised_bytes == 0
    assert refusal.stored_bytes == in_redis(redis_client, *ended)
    # About half of what was free, and others find the rest.
    assert 2_500_000 < refusal.stored_bytes < 4_500_000
    end_one(redis_client, settings, OTHER)
    with pytest.raises(NoRoom):
        end_one(redis_client, settings, FLOOD)

    store = JobStore(redis_client, settings)
    shown = RetryEstimate(RecentWorkers(store, settings)).no_room(refusal)
    assert "Erase results" in shown.message
    assert "you would hold more of Redis than is free" in shown.message
    assert shown.details["stored_bytes"] == refusal.stored_bytes
    assert shown.details["retry_after_s"] == MAX_RETRY_S

    for task_id in ended[:3]:
        store.erase(task_id)
    end_one(redis_client, settings, FLOOD)


def test_batch_of_a_client_that_has_stored_its_share_is_refused(redis_client):
    settings = with_room(redis_client, 4_000_000)
    # Batches of the test are those of a client without an address.
    fill(redis_client, settings, "")
    with pytest.raises(NoRoom) as refusal:
        Batches(redis_client, settings).accept(num_parts=50)
    assert refusal.value.is_share
    assert refusal.value.stored_bytes == stored(redis_client, "")


def test_metadata_of_an_openai_batch_counts_until_the_batch_is_erased(redis_client, settings):
    batches = Batches(redis_client, settings)
    files = FileStore(redis_client, settings, batches.jobs)
    batch_id, _ = batches.accept(num_parts=1)
    for note in ("x" * 50_000, "later"):
        files.note_batch(batch_id, {"metadata": {"note": note}})
    noted = redis_client.hstrlen(keys.batch(batch_id), "openai")
    assert stored(redis_client, "") == noted > 50_000
    batches.end_part(batch_id, 0)
    assert stored(redis_client, "") > noted
    batches.store.erase(batch_id)
    assert not redis_client.keys(f"{keys.STORED}*")


def test_what_expires_is_not_counted_any_more(redis_client):
    settings = with_room(redis_client, 2_000_000).model_copy(update={"result_ttl_s": 5})
    fill(redis_client, settings, FLOOD)
    until = time.monotonic() + 20
    while redis_client.keys(f"{keys.STORED}*"):
        assert time.monotonic() < until
        time.sleep(0.05)
    end_one(redis_client, settings, FLOOD)


@pytest.mark.parametrize("num_erased", [1, 2])
def test_count_is_that_of_what_is_in_redis_however_often_it_ends_and_is_erased(
    job_store, redis_client, settings, num_erased
):
    erased, kept, of_other = (
        end_one(redis_client, settings, name) for name in (FLOOD, FLOOD, OTHER)
    )
    assert stored(redis_client) == in_redis(redis_client, erased, kept)
    for _ in range(num_erased):
        job_store.erase(erased)
    assert stored(redis_client) == in_redis(redis_client, kept)
    assert stored(redis_client, OTHER) == in_redis(redis_client, of_other)
    job_store.erase(kept)
    job_store.erase(of_other)
    assert not redis_client.keys(f"{keys.STORED}*")


@pytest.mark.parametrize("end", ["cancel", "erase"])
def test_job_that_stores_no_result_counts_its_record_alone(job_store, redis_client, end):
    task_id = job_store.submit(a_job(client=FLOOD)).task_id
    assert stored(redis_client) == 0
    getattr(job_store, end)(task_id)
    assert stored(redis_client) == in_redis(redis_client, task_id)
    job_store.erase(task_id)
    assert not redis_client.keys(f"{keys.STORED}*")


def test_each_count_expires_soon_after_what_it_counts(redis_client, settings):
    task_id = end_one(redis_client, settings)
    (name,) = redis_client.keys(f"{keys.STORED}*")
    later_s = redis_client.expiretime(name) - redis_client.expiretime(keys.record(task_id))
    assert 0 <= later_s <= settings.result_ttl_s / 24


def test_job_of_an_earlier_release_is_neither_counted_nor_taken_off(
    job_store, redis_client, settings
):
    kept = end_one(redis_client, settings)
    job = a_job(client=FLOOD)
    task_id = job_store.submit(job).task_id
    facts = {name: value for name, value in job.facts().items() if name != "client"}
    error = JobUnreadable("no")
    job_store.conclude([Ending(task_id, failure_record(task_id, error, facts, time.time()))])
    assert stored(redis_client) == in_redis(redis_client, kept)
    job_store.erase(task_id)
    assert stored(redis_client) == in_redis(redis_client, kept)


def test_text_that_looks_like_the_facts_of_a_record_names_no_client(job_store, redis_client):
    job = a_job(client=FLOOD)
    task_id = job_store.submit(job).task_id
    text = f'"job":{{"client":"{OTHER}"'
    job_store.conclude([scored(task_id, job, text)])
    assert job_store.read(task_id).result == {"v": text}
    assert stored(redis_client) == in_redis(redis_client, task_id)
    assert stored(redis_client, OTHER) == 0


def test_requeued_job_is_counted_once(job_store, redis_client, settings):
    letters, job = DeadLetters(redis_client, settings), a_job(client=FLOOD)
    task_id = job_store.submit(job).task_id
    payload = encode_payload(job)
    letters.add("payload", "test", task_id=task_id, num_bytes=len(payload), raw=payload)
    record = failure_record(task_id, JobUnreadable("no"), job.facts(), time.time())
    job_store.conclude([Ending(task_id, record)])
    assert stored(redis_client) == in_redis(redis_client, task_id)
    letters.requeue(letters.letters()[0])
    assert stored(redis_client) == 0
    job_store.conclude([scored(task_id, job)])
    assert stored(redis_client) == in_redis(redis_client, task_id)


def in_batch(client: redis.Redis, batch_id: str) -> int:
    """The bytes of the result lines and of the final records of a batch's parts."""
    results = client.hgetall(keys.batch_results(batch_id))
    records = (keys.record(str(PartId(batch_id, int(first)))) for first in results)
    return sum(map(len, results.values())) + sum(map(client.strlen, records))


@pytest.mark.parametrize("num_ended", [1, 2])
def test_batch_counts_what_its_parts_stored_until_it_is_erased(redis_client, settings, num_ended):
    batches = Batches(redis_client, settings)
    kept = end_one(redis_client, settings, "")
    batch_id, _ = batches.accept(num_parts=2)
    for part in range(num_ended):
        batches.end_part(batch_id, 5 * part)
    before = in_redis(redis_client, kept)
    assert stored(redis_client, "") == before + in_batch(redis_client, batch_id)
    for _ in range(2):
        batches.store.erase(batch_id)
        assert stored(redis_client, "") == before


def test_what_a_batch_stored_expires_with_its_last_part(redis_client, settings):
    batches = Batches(redis_client, settings)
    batch_id, _ = batches.accept(num_parts=2)
    batches.end_part(batch_id, 0)
    # As if a period had passed since then.
    period_s = settings.result_ttl_s // 24
    (name,) = redis_client.keys(f"{keys.STORED}*")
    until = int(redis_client.hget(keys.batch(batch_id), "stored_until")) - period_s
    number = -(-until // period_s) % 26
    redis_client.rename(name, f"{keys.STORED}:{number}")
    redis_client.hset(keys.batch(batch_id), "stored_until", until)

    batches.end_part(batch_id, 5)
    assert redis_client.keys(f"{keys.STORED}*") == [name]
    assert int(redis_client.get(name)) == in_batch(redis_client, batch_id)
    assert redis_client.expiretime(name) >= redis_client.expiretime(keys.batch(batch_id))


def test_periods_that_are_counted_at_once_have_different_numbers(redis_client):
    script = script_text("stored") + "count_stored(KEYS[1], '', ARGV[1], ARGV[2], 1)"
    for ttl_s in (1, 5, 24, 100, 86_400, 86_401):
        redis_client.flushall()
        now, period_s = 2_000_000_000, -(-ttl_s // 24)
        # From what expires now to what is stored at the end of this period.
        expiries = range(now, now + ttl_s + period_s + 1, period_s)
        for expires_at in expiries:
            redis_client.eval(script, 1, keys.STORED, expires_at, ttl_s)
        counts = [int(redis_client.get(key)) for key in redis_client.keys(f"{keys.STORED}*")]
        assert counts == [1] * len(expiries)
