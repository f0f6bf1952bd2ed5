"""Quotas of API keys on a real Redis: taken in the script that admits, refilled by time."""

import time
from dataclasses import replace

import pytest

from contract import keys
from contract.api_keys import NO_QUOTA, Quota
from contract.batches import Batch, Part
from contract.messages import Job
from contract.settings import load_settings
from contract.store.admission.outcomes import Idempotency, QueueFull, QuotaUsedUp
from contract.store.batches.batch_store import BatchStore
from contract.store.connection.broker import connect
from contract.store.jobs.job_store import JobStore


def a_job(num_bytes: int = 5, client: str = "key:a") -> Job:
    now = time.time()
    return Job([{"text": "x"}], num_bytes, now, now + 60, client=client)


def go_back(redis_client, owner: str, seconds: float) -> None:
    """Let time pass for a quota, as if it was last used earlier."""
    name = keys.quota(owner)
    for field in ("requests_at", "bytes_at"):
        if redis_client.hexists(name, field):
            redis_client.hincrbyfloat(name, field, -seconds)


def test_requests_pass_until_the_quota_is_used_up_and_again_when_it_refills(
    job_store, redis_client
):
    quota = Quota("a", requests_per_minute=3)
    left = [job_store.submit(a_job(), quota=quota).quota_left for _ in range(3)]
    assert [each.requests for each in left] == [2, 1, 0]
    with pytest.raises(QuotaUsedUp) as refused:
        job_store.submit(a_job(), quota=quota)
    assert 10 <= refused.value.wait_s <= 20
    assert job_store.depth().jobs == 3
    go_back(redis_client, "a", 21)
    job_store.submit(a_job(), quota=quota)
    with pytest.raises(QuotaUsedUp):
        job_store.submit(a_job(), quota=quota)
    go_back(redis_client, "a", 10_000)
    # No more than the quota of one minute is saved up.
    assert job_store.submit(a_job(), quota=quota).quota_left.requests == 2


def test_text_larger_than_the_quota_passes_and_leaves_a_debt(job_store, redis_client):
    quota = Quota("a", bytes_per_minute=100)
    assert job_store.submit(a_job(250), quota=quota).quota_left.bytes == -150
    with pytest.raises(QuotaUsedUp) as refused:
        job_store.submit(a_job(1), quota=quota)
    assert 80 <= refused.value.wait_s <= 91
    assert redis_client.ttl(keys.quota("a")) > 120
    go_back(redis_client, "a", 92)
    job_store.submit(a_job(1), quota=quota)


def test_bucket_refills_after_the_clock_of_redis_was_ahead(job_store, redis_client):
    quota = Quota("a", requests_per_minute=3, bytes_per_minute=100)
    for _ in range(3):
        job_store.submit(a_job(40), quota=quota)
    go_back(redis_client, "a", -3600)
    for _ in range(2):
        with pytest.raises(QuotaUsedUp) as refused:
            job_store.submit(a_job(), quota=quota)
        assert 10 <= refused.value.wait_s <= 20
    go_back(redis_client, "a", 21)
    assert job_store.submit(a_job(), quota=quota).quota_left.requests == 0


def test_bucket_of_an_earlier_release_refills(job_store, redis_client):
    quota = Quota("a", requests_per_minute=2, bytes_per_minute=100)
    held = {"requests": 0, "bytes": 0, "at": time.time() - 31}
    redis_client.hset(keys.quota("a"), mapping=held)
    left = job_store.submit(a_job(), quota=quota).quota_left
    assert (left.requests, 40 < left.bytes < 60) == (0, True)


def test_quotas_of_two_owners_are_apart_and_without_one_nothing_is_counted(job_store, redis_client):
    job_store.submit(a_job(), quota=Quota("a", requests_per_minute=1))
    job_store.submit(a_job(), quota=Quota("b", requests_per_minute=1))
    with pytest.raises(QuotaUsedUp):
        job_store.submit(a_job(), quota=Quota("a", requests_per_minute=1))
    for _ in range(3):
        assert job_store.submit(a_job(), quota=NO_QUOTA).quota_left is None
        assert job_store.submit(a_job(), quota=Quota("c")).quota_left is None
    assert not redis_client.exists(keys.quota("c"))


def test_keys_of_one_owner_with_limits_of_different_kinds_do_not_hinder_each_other(
    job_store, redis_client
):
    of_bytes = Quota("a", bytes_per_minute=1000)
    of_requests = Quota("a", requests_per_minute=10)
    of_both = Quota("a", requests_per_minute=10, bytes_per_minute=1000)
    for _ in range(40):
        job_store.submit(a_job(), quota=of_bytes)
    left = job_store.submit(a_job(), quota=of_both).quota_left
    assert left.requests == 9
    # The minute goes on: some bytes are back.
    assert 795 <= left.bytes < 1000
    job_store.submit(a_job(9000), quota=of_bytes)
    for _ in range(5):
        job_store.submit(a_job(2000), quota=of_requests)
    with pytest.raises(QuotaUsedUp) as refused:
        job_store.submit(a_job(), quota=of_both)
    # Neither did the other key take the debt of bytes away, nor add to it.
    assert refused.value.left.requests < 9
    assert -8205 <= refused.value.left.bytes < 0


def test_use_of_one_limit_leaves_the_other_its_time_to_refill(job_store, redis_client):
    of_requests, of_bytes = Quota("a", requests_per_minute=2), Quota("a", bytes_per_minute=100)
    job_store.submit(a_job(), quota=of_requests)
    job_store.submit(a_job(), quota=of_requests)
    job_store.submit(a_job(500), quota=of_bytes)
    assert redis_client.ttl(keys.quota("a")) > 240
    go_back(redis_client, "a", 31)
    job_store.submit(a_job(), quota=of_requests)
    # A shorter time does not replace that of the debt.
    assert redis_client.ttl(keys.quota("a")) > 200
    for _ in range(3):
        with pytest.raises(QuotaUsedUp):
            job_store.submit(a_job(), quota=of_bytes)
    go_back(redis_client, "a", 31)
    job_store.submit(a_job(), quota=of_requests)


def test_own_submission_that_is_repeated_after_a_lost_answer_is_no_replay(job_store):
    quota, promise = Quota("a", requests_per_minute=2), Idempotency("key", "request")
    task_id = job_store.new_id()
    first, second = (job_store.submit(a_job(), promise, quota, task_id) for _ in range(2))
    assert first.task_id == second.task_id == task_id
    assert not second.is_replay
    assert second.quota_left.requests == first.quota_left.requests == 1


def test_own_upload_that_is_repeated_after_a_lost_answer_is_no_replay(
    job_store, settings, redis_client
):
    batches = BatchStore(redis_client, settings, job_store)
    quota, promise = Quota("a", requests_per_minute=2), Idempotency("key", "request")
    batch = received(batches, 5)
    first, second = (batches.accept(batch, promise, work_bytes=5, quota=quota) for _ in range(2))
    assert not second.is_replay
    assert second.quota_left.requests == first.quota_left.requests == 1


def test_refused_and_repeated_requests_take_nothing(job_store, redis_client):
    quota = Quota("a", requests_per_minute=2)
    promise = Idempotency("key", "request")
    first = job_store.submit(a_job(), promise, quota)
    for _ in range(5):
        assert job_store.submit(a_job(), promise, quota).task_id == first.task_id
    assert job_store.submit(a_job(), quota=quota).quota_left.requests == 0
    for _ in range(3):
        with pytest.raises(QuotaUsedUp) as refused:
            job_store.submit(a_job(), quota=quota)
    assert refused.value.wait_s <= 30


def test_share_of_the_queue_holds_for_jobs_and_batches(redis_server):
    names = {"REDIS_URL": redis_server.url, "MAX_QUEUED_JOBS": "20", "MAX_QUEUED_BATCHES": "20"}
    settings = load_settings({f"EVASCORE_{name}": value for name, value in names.items()})
    quota = Quota("a", queue_share=0.2)
    with connect(settings) as client:
        jobs = JobStore(client, settings)
        batches = BatchStore(client, settings, jobs)
        for _ in range(4):
            jobs.submit(a_job(), quota=quota)
            upload(batches, quota)
        with pytest.raises(QueueFull) as refused:
            jobs.submit(a_job(), quota=quota)
        assert refused.value.is_share
        with pytest.raises(QueueFull) as refused:
            upload(batches, quota)
        assert refused.value.is_share
        jobs.submit(a_job(client="key:b"), quota=replace(quota, owner="b"))


def upload(batches: BatchStore, quota: Quota, num_bytes: int = 5) -> str:
    batch = received(batches, num_bytes)
    return batches.accept(batch, work_bytes=num_bytes, quota=quota).batch_id


def received(batches: BatchStore, num_bytes: int) -> Batch:
    now = time.time()
    batch_id = batches.new_id("a")
    part, job = Part(0, 1, num_bytes), a_job(num_bytes)
    batches.store_parts(batch_id, [(part, job)])
    return Batch(batch_id, 1, num_bytes, 1, now, now + 60, client="key:a")


def test_batch_takes_its_bytes_and_later_uploads_are_refused_before_they_are_read(
    job_store, settings, redis_client
):
    batches = BatchStore(redis_client, settings, job_store)
    quota = Quota("a", requests_per_minute=5, bytes_per_minute=100)
    batches.check_quota(quota)
    upload(batches, quota, 120)
    for attempt in (lambda: batches.check_quota(quota), lambda: upload(batches, quota)):
        with pytest.raises(QuotaUsedUp) as refused:
            attempt()
        assert refused.value.left.requests == 4
        assert -20 <= refused.value.left.bytes <= -5
    with pytest.raises(QuotaUsedUp):
        job_store.submit(a_job(), quota=quota)
    batches.check_quota(NO_QUOTA)
