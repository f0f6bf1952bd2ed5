"""The job store on a real Redis: one record, one final state, nothing counted twice."""

import time

import orjson
import pytest
import zstandard
from celery.result import AsyncResult

from contract import keys
from contract.errors import (
    BrokerUnavailable,
    JobEnded,
    JobGone,
    JobNotFound,
    ScoringFailed,
    ServiceError,
)
from contract.messages import Job, failure_record, success_record
from contract.settings import load_settings
from contract.store.admission.outcomes import Idempotency, KeyReused, QueueDepth, QueueFull
from contract.store.connection.broker import connect
from contract.store.connection.celery_app import create_celery
from contract.store.jobs.endings import Ending
from contract.store.jobs.job_store import JobStore
from contract.stored_results import APART_BYTES, encode_success, promised_bytes


def a_job(num_bytes: int = 5, **changes) -> Job:
    now = time.time()
    fields = {
        "requests": [{"text": "x" * num_bytes}],
        "num_bytes": num_bytes,
        "submitted_at": now,
        "deadline_at": now + 60,
    }
    return Job(**{**fields, **changes})


def scored(task_id: str, job: Job, value: int = 1) -> Ending:
    return Ending(task_id, success_record(task_id, {"v": value}, job.facts(), time.time()))


def test_submitted_job_is_queued_with_its_size(job_store):
    receipt = job_store.submit(a_job(7))
    record = job_store.read(receipt.task_id)
    assert record.state == "QUEUED"
    assert record.job["num_bytes"] == 7
    assert (receipt.depth.jobs, receipt.depth.bytes) == (1, 7)


def test_next_characters_count_as_work_for_the_queue(job_store):
    requests = [{"text": "a"}, {"text": "", "next_chars": 100}]
    receipt = job_store.submit(a_job(2, requests=requests, is_single=False))
    assert receipt.depth.bytes == 102
    assert job_store.read(receipt.task_id).job["num_bytes"] == 2


def test_opening_a_job_marks_it_started_and_hands_out_its_payload(job_store):
    job = a_job(requests=[{"text": 'naïve "quoted" {"status":"SUCCESS"}'}])
    task_id = job_store.submit(job).task_id
    (opened,) = job_store.open_jobs([task_id])
    assert opened.job == job
    assert job_store.read(task_id).state == "STARTED"


def test_first_final_state_wins(job_store):
    job = a_job()
    task_id = job_store.submit(job).task_id
    failure = failure_record(task_id, ScoringFailed("no"), job.facts(), time.time())
    assert job_store.conclude([scored(task_id, job, 1)]) == ["SUCCESS"]
    assert job_store.conclude([scored(task_id, job, 2)]) == ["SUCCESS"]
    assert job_store.conclude([Ending(task_id, failure)]) == ["SUCCESS"]
    assert job_store.read(task_id).result == {"v": 1}


def test_depth_counts_each_job_once_however_often_it_is_concluded(job_store):
    jobs = [a_job(n) for n in (3, 5, 7)]
    ids = [job_store.submit(job).task_id for job in jobs]
    for _ in range(3):
        job_store.conclude([scored(ids[0], jobs[0])])
    depth = job_store.depth()
    assert (depth.jobs, depth.bytes) == (2, 12)


def test_text_is_deleted_the_moment_the_job_ends(job_store, redis_client):
    job = a_job()
    task_id = job_store.submit(job).task_id
    job_store.conclude([scored(task_id, job)])
    assert redis_client.get(keys.payload(task_id)) is None


def test_cancelled_job_is_revoked_and_not_opened_any_more(job_store):
    task_id = job_store.submit(a_job()).task_id
    record = job_store.cancel(task_id)
    assert record.state == "REVOKED"
    assert record.error["code"] == "job_cancelled"
    (opened,) = job_store.open_jobs([task_id])
    assert opened.job is None
    assert job_store.depth().jobs == 0


def test_ended_job_cannot_be_cancelled(job_store):
    job = a_job()
    task_id = job_store.submit(job).task_id
    job_store.conclude([scored(task_id, job)])
    with pytest.raises(JobEnded):
        job_store.cancel(task_id)
    assert job_store.read(task_id).state == "SUCCESS"


def test_erased_job_is_gone_and_no_later_result_brings_it_back(job_store):
    job = a_job()
    task_id = job_store.submit(job).task_id
    job_store.erase(task_id)
    job_store.erase(task_id)
    assert job_store.conclude([scored(task_id, job)]) == [""]
    with pytest.raises(JobGone):
        job_store.read(task_id)
    assert job_store.depth().jobs == 0


@pytest.mark.parametrize("task_id", ["", "x", "a" * 32, "ä" * 32, "A" * 32, "2" * 31 + "="])
def test_id_that_was_never_given_out_is_not_found(job_store, task_id):
    with pytest.raises(JobNotFound):
        job_store.read(task_id)
    with pytest.raises(JobNotFound):
        job_store.erase(task_id)


def test_ids_belong_to_their_owner_at_every_web_server_after_redis_has_lost_its_data(
    job_store, redis_client, settings
):
    before = job_store.new_id("team")
    redis_client.flushall()
    job_store.worker_statuses()
    later = JobStore(redis_client, settings)
    assert later.is_owned_by(before, "team")
    assert job_store.is_owned_by(later.new_id("team"), "team")


def test_key_of_ids_that_comes_back_with_a_backup_replaces_the_one_that_was_made_meanwhile(
    job_store, redis_client, settings
):
    before = job_store.new_id("team")
    backup = redis_client.get(keys.ID_SECRET)
    redis_client.flushall()
    meanwhile = JobStore(redis_client, settings)
    meanwhile.new_id("team")
    redis_client.set(keys.ID_SECRET, backup)
    meanwhile.worker_statuses()
    assert meanwhile.is_owned_by(before, "team")


def test_full_redis_that_has_lost_the_key_of_ids_still_tells_of_its_workers(
    job_store, redis_client
):
    before = job_store.new_id("team")
    redis_client.flushall()
    redis_client.config_set("maxmemory", 1)
    assert job_store.worker_statuses() == []
    assert job_store.is_owned_by(before, "team")


def test_queue_refuses_what_exceeds_its_bytes_or_its_jobs(redis_server):
    settings = load_settings(
        {
            "EVASCORE_REDIS_URL": redis_server.url,
            "EVASCORE_MAX_QUEUED_JOBS": "2",
            "EVASCORE_MAX_TEXT_BYTES": "10",
            "EVASCORE_MAX_JOB_BYTES": "10",
            "EVASCORE_MAX_QUEUED_BYTES": "10",
        }
    )
    with connect(settings) as client:
        store = JobStore(client, settings)
        store.submit(a_job(4, client="a"))
        with pytest.raises(QueueFull):
            store.submit(a_job(7, client="b"))
        store.submit(a_job(6, client="b"))
        with pytest.raises(QueueFull) as refused:
            store.submit(a_job(0, client="c"))
        assert not refused.value.is_share
        assert refused.value.depth == QueueDepth(2, 10)


def test_client_holds_no_more_of_the_queue_than_is_free(redis_server):
    limits = {"MAX_QUEUED_JOBS": "9", "MAX_TEXT_BYTES": "100", "MAX_JOB_BYTES": "100"}
    limits |= {"MAX_QUEUED_BYTES": "100", "REDIS_URL": redis_server.url}
    settings = load_settings({f"EVASCORE_{name}": value for name, value in limits.items()})

    def num_accepted(store: JobStore, client: str, num_bytes: int) -> int:
        for count in range(10):
            try:
                store.submit(a_job(num_bytes, client=client))
            except QueueFull:
                return count
        raise AssertionError("never refused")

    with connect(settings) as client:
        store = JobStore(client, settings)
        # Half of the jobs, then a third of them; half of the bytes that are left.
        assert num_accepted(store, "flood", 1) == 5
        assert num_accepted(store, "other", 1) == 2
        store.submit(a_job(46, client="large"))
        with pytest.raises(QueueFull):
            store.submit(a_job(1, client="large"))


def test_share_of_a_client_comes_back_however_its_jobs_end(job_store, redis_client):
    job = a_job(client="192.0.2.7")
    ids = [job_store.submit(job).task_id for _ in range(3)]
    assert redis_client.hgetall(keys.LIVE_CLIENTS) == {
        b"jobs:192.0.2.7": b"3",
        b"bytes:192.0.2.7": b"15",
        b"promised:192.0.2.7": b"%d" % (3 * promised_bytes(0)),
    }
    job_store.conclude([scored(ids[0], job)])
    job_store.cancel(ids[1])
    job_store.erase(ids[2])
    job_store.erase(ids[2])
    job_store.conclude([scored(ids[0], job)])
    assert redis_client.hgetall(keys.LIVE_CLIENTS) == {}
    assert [redis_client.get(name) for name in (keys.LIVE_BYTES, keys.LIVE_PROMISED)] == [b"0"] * 2


def test_live_job_of_release_0_1_is_taken_off_the_counts(job_store, redis_client):
    job = a_job(7)
    task_id = job_store.submit(job).task_id
    redis_client.hset(keys.LIVE_JOBS, task_id, 7)
    job_store.conclude([scored(task_id, job)])
    depth = job_store.depth()
    assert (depth.jobs, depth.bytes) == (0, 0)


def test_same_idempotency_key_and_request_give_the_same_task(job_store):
    promise = Idempotency("key", "request")
    first = job_store.submit(a_job(), promise)
    second = job_store.submit(a_job(), promise)
    assert (second.task_id, second.is_replay) == (first.task_id, True)
    assert job_store.depth().jobs == 1
    with pytest.raises(KeyReused):
        job_store.submit(a_job(), Idempotency("key", "another request"))


def test_celery_reads_our_records(job_store, settings):
    app = create_celery(settings)
    job = a_job()
    scored_id, failed_id, queued_id = (job_store.submit(job).task_id for _ in range(3))
    job_store.conclude([scored(scored_id, job)])
    failure = failure_record(failed_id, ScoringFailed("too odd"), job.facts(), time.time())
    job_store.conclude([Ending(failed_id, failure, "jobs_failed")])
    assert AsyncResult(queued_id, app=app).state == "QUEUED"
    assert AsyncResult(scored_id, app=app).get(timeout=5) == {"v": 1}
    with pytest.raises(ScoringFailed, match="too odd"):
        AsyncResult(failed_id, app=app).get(timeout=5)
    app.close()


def test_large_result_expires_with_its_record_and_is_erased_with_it(job_store, redis_client):
    job = a_job()
    task_id = job_store.submit(job).task_id
    result = {"v": "x" * APART_BYTES}
    record, stored = encode_success(task_id, result, job.facts(), time.time())
    for _ in range(2):
        job_store.conclude([Ending(task_id, record, stored_result=stored)])
    found = job_store.read(task_id)
    assert job_store.with_result(found).result == result
    names = (keys.record(task_id), keys.result(task_id))
    assert len({redis_client.expiretime(name) for name in names}) == 1
    job_store.erase(task_id)
    assert redis_client.exists(*names) == 0
    with pytest.raises(JobGone):
        job_store.result_pieces(found)


def test_result_of_a_job_that_was_erased_meanwhile_is_not_stored(job_store, redis_client):
    job = a_job()
    task_id = job_store.submit(job).task_id
    job_store.erase(task_id)
    record, stored = encode_success(task_id, {"v": "x" * APART_BYTES}, job.facts(), time.time())
    assert job_store.conclude([Ending(task_id, record, stored_result=stored)]) == [""]
    assert not redis_client.exists(keys.result(task_id))


def test_celery_reads_the_record_of_a_large_result_and_where_the_result_is(
    job_store, settings, redis_client
):
    app = create_celery(settings)
    job = a_job()
    task_id = job_store.submit(job).task_id
    result = {"v": "x" * APART_BYTES}
    record, stored = encode_success(task_id, result, job.facts(), time.time())
    job_store.conclude([Ending(task_id, record, stored_result=stored)])
    found = AsyncResult(task_id, app=app)
    place = found.get(timeout=5)
    assert (found.state, place["encoding"]) == ("SUCCESS", "zstd")
    text = zstandard.decompress(redis_client.get(place["stored_in"]))
    assert orjson.loads(text) == result
    app.close()


def test_redis_that_is_away_is_a_service_error(redis_server, job_store):
    task_id = job_store.submit(a_job()).task_id
    redis_server.kill()
    for call in (lambda: job_store.submit(a_job()), lambda: job_store.read(task_id)):
        with pytest.raises(BrokerUnavailable) as raised:
            call()
        assert isinstance(raised.value, ServiceError)
    redis_server.start()
    assert job_store.read(task_id).state == "QUEUED"
