"""Why Redis did not take a write: what each of its errors means."""

import pytest
import redis

from contract import keys
from contract.messages import success_record
from contract.store.connection.broker import too_old
from contract.store.connection.refusals import NotStored, refusal_reason
from contract.store.jobs.endings import Ending
from tests.contract.store.test_job_store import a_job

ERRORS = {
    "disk": redis.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
    "read_only": redis.ReadOnlyError("You can't write against a read only replica."),
    "slow": redis.TimeoutError("Timeout reading from socket"),
    "cut": redis.ConnectionError("Connection closed by server."),
    "refused": redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind"),
}


@pytest.mark.parametrize("reason", ERRORS)
def test_reason_of_an_error(reason):
    assert refusal_reason(ERRORS[reason], lambda: True) == reason


@pytest.mark.parametrize(
    "error", [redis.TimeoutError(), redis.ConnectionError(), redis.BusyLoadingError()]
)
def test_redis_that_answers_no_ping_is_away(error):
    assert refusal_reason(error, lambda: False) is None


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [("maxmemory", 1, "full"), ("min-replicas-to-write", 1, "read_only")],
)
def test_reason_that_a_real_redis_gives(redis_client, option, value, reason):
    redis_client.config_set(option, value)
    with pytest.raises(redis.ResponseError) as refusal:
        redis_client.set("a", "b")
    assert refusal_reason(refusal.value, lambda: True) == reason


def test_reason_of_a_command_in_a_pipeline(redis_client):
    redis_client.config_set("min-replicas-to-write", 1)
    with redis_client.pipeline() as pipe, pytest.raises(redis.ResponseError) as refusal:
        pipe.set("a", "b").execute()
    assert refusal_reason(refusal.value, lambda: True) == "read_only"


def test_real_redis_whose_disk_is_full_says_so(redis_server, redis_client):
    redis_server.fill_disk()
    with pytest.raises(redis.ResponseError) as refusal:
        redis_client.set("a", "b")
    assert refusal_reason(refusal.value, lambda: True) == "disk"


def test_full_redis_takes_endings(job_store, redis_client):
    job = a_job()
    task_id = job_store.submit(job).task_id
    redis_client.config_set("maxmemory", 1)
    (opened,) = job_store.open_jobs([task_id], "w")
    assert opened.job == job
    job_store.note_aboard([task_id], "w")
    record = success_record(task_id, {"v": 1}, job.facts(), 0.0)
    assert job_store.conclude([Ending(task_id, record)], "w") == ["SUCCESS"]
    assert job_store.read(task_id).result == {"v": 1}
    job_store.erase(task_id)
    assert job_store.depth().jobs == 0


def test_worker_may_start_at_a_full_redis_although_that_does_not_count_it(job_store, redis_client):
    redis_client.config_set("maxmemory", 1)
    job_store.note_started("w")
    assert not redis_client.exists(keys.starts("w"))


def test_write_that_redis_ends_the_connection_for_is_distinguished_from_a_redis_that_is_away(
    job_store, redis_client, redis_server
):
    task_id = job_store.submit(a_job()).task_id
    redis_client.config_set("proto-max-bulk-len", 2 * 1024**2)
    record = success_record(task_id, None, {}, 0.0)
    large = Ending(task_id, record, stored_result=b"x" * 3 * 1024**2)
    with pytest.raises(NotStored) as refusal:
        job_store.conclude([large], "w")
    # Redis closes the connection, and its reply may be lost with it.
    assert refusal.value.reason in ("cut", "refused")
    assert job_store.conclude([Ending(task_id, record)], "w") == ["SUCCESS"]
    redis_server.kill()
    with pytest.raises(redis.ConnectionError):
        job_store.conclude([large], "w")


def test_redis_without_its_replicas_keeps_the_jobs_of_a_worker_in_its_hand(job_store, redis_client):
    task_id = job_store.submit(a_job()).task_id
    redis_client.config_set("min-replicas-to-write", 1)
    with pytest.raises(NotStored) as refusal:
        job_store.open_jobs([task_id], "w")
    assert refusal.value.reason == "read_only"
    job_store.note_aboard([task_id], "w")
    with pytest.raises(NotStored):
        job_store.conclude([Ending(task_id)], "w")


@pytest.mark.parametrize(
    ("version", "is_too_old"), [("6.2.14", True), ("7.0.0", False), ("10.1.0", False)]
)
def test_redis_that_cannot_run_the_scripts_is_too_old(
    redis_client, monkeypatch, version, is_too_old
):
    assert too_old(redis_client) is None
    monkeypatch.setattr(redis_client, "info", lambda section: {"redis_version": version})
    assert bool(too_old(redis_client)) is is_too_old
