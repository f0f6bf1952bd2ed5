"""Redis rewrites its append-only file when something was deleted, and not otherwise."""

import re
import time

import psutil
import pytest
import redis
from structlog.testing import capture_logs

from contract import keys
from contract.settings import REPOSITORY
from contract.store.forgetting import Forgetting
from contract.store.jobs.job_store import JobStore
from tests.conftest import RedisServer, wait_until
from tests.worker_process import a_job

FORGET_S = 0.4


class Clock:
    """Monotonic seconds that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The clock of the watch."""
    return Clock()


@pytest.fixture
def forgetting(redis_client, clock) -> Forgetting:
    """A watch over a Redis in which nothing was deleted yet."""
    watch = Forgetting(redis_client, 3600)
    run_until_quiet(watch, redis_client)
    return Forgetting(redis_client, FORGET_S, clock)


def run_until_quiet(watch: Forgetting, client: redis.Redis) -> None:
    """Take the note that stands for a server that was just started."""
    watch.run()
    client.delete(keys.FORGETTABLE_SINCE)


def num_rewrites(client: redis.Redis) -> int:
    return int(client.info("persistence")["aof_rewrites"])


def on_disk(server: RedisServer, marker: bytes) -> bool:
    files = (path for path in server.data_dir.rglob("*") if path.is_file())
    return any(marker in path.read_bytes() for path in files)


def forget(watch: Forgetting, client: redis.Redis) -> None:
    """Run the watch until nothing is left to forget."""

    def is_done() -> bool:
        watch.run()
        return not client.exists(keys.FORGETTABLE_SINCE, keys.REWRITING)

    wait_until(is_done, timeout_s=20)


def marked_job(store: JobStore, marker: str) -> str:
    job = a_job(10)
    job.requests[0]["text"] = marker
    return store.submit(job).task_id


def test_erased_text_leaves_the_file(redis_server, redis_client, job_store, forgetting):
    kept, erased = marked_job(job_store, "kept-marker"), marked_job(job_store, "erased-marker")
    job_store.erase(erased)
    assert on_disk(redis_server, b"erased-marker")
    forget(forgetting, redis_client)
    wait_until(lambda: not on_disk(redis_server, b"erased-marker"))
    assert on_disk(redis_server, b"kept-marker")
    assert job_store.read(kept).state == "QUEUED"
    assert num_rewrites(redis_client) == 1


def test_expired_key_leaves_the_file(redis_server, redis_client, forgetting):
    redis_client.set("celery-task-meta-x", "expired-marker", px=50)
    wait_until(lambda: not redis_client.dbsize() or not redis_client.exists("celery-task-meta-x"))
    forget(forgetting, redis_client)
    wait_until(lambda: not on_disk(redis_server, b"expired-marker"))


def test_nothing_is_rewritten_while_nothing_is_deleted(redis_client, job_store, forgetting):
    marked_job(job_store, "waits")
    for _ in range(3):
        time.sleep(FORGET_S)
        forgetting.run()
    assert num_rewrites(redis_client) == 0


def test_rewrite_waits_for_three_quarters_of_the_time(redis_client, job_store):
    watch = Forgetting(redis_client, 3600)
    run_until_quiet(watch, redis_client)
    job_store.erase(marked_job(job_store, "x"))
    watch.run()
    noted = int(redis_client.get(keys.FORGETTABLE_SINCE))
    redis_client.set(keys.FORGETTABLE_SINCE, noted - 2690)
    watch.run()
    assert not redis_client.exists(keys.REWRITING)
    redis_client.set(keys.FORGETTABLE_SINCE, noted - 2710)
    watch.run()
    assert redis_client.exists(keys.REWRITING)


def test_rewrite_is_due_in_time_after_the_clock_of_redis_was_ahead(
    redis_client, job_store, forgetting
):
    job_store.erase(marked_job(job_store, "x"))
    redis_client.incrby(keys.FORGETTABLE_SINCE, 3600)
    forgetting.run()
    assert not redis_client.exists(keys.REWRITING)
    forget(forgetting, redis_client)
    assert num_rewrites(redis_client) == 1


def test_what_is_deleted_during_a_rewrite_has_the_next_one(redis_client, job_store, forgetting):
    job_store.erase(marked_job(job_store, "first"))
    wait_until(lambda: begun(forgetting, redis_client))
    job_store.erase(marked_job(job_store, "second"))
    noted = redis_client.get(keys.FORGETTABLE_SINCE)
    assert noted is not None
    forget(forgetting, redis_client)
    assert num_rewrites(redis_client) == 2


def begun(watch: Forgetting, client: redis.Redis) -> bool:
    watch.run()
    return bool(client.exists(keys.REWRITING))


def test_rewrite_that_fails_is_tried_again(
    redis_server, redis_client, job_store, forgetting, clock
):
    marked_job(job_store, "waits")
    job_store.erase(marked_job(job_store, "erased-marker"))
    noted = redis_client.get(keys.FORGETTABLE_SINCE)
    # Slow enough to be killed.
    redis_client.config_set("rdb-key-save-delay", "1000000")
    wait_until(lambda: begun(forgetting, redis_client))
    (rewriting,) = wait_until(psutil.Process(redis_server.process.pid).children)
    rewriting.kill()
    wait_until(lambda: not begun(forgetting, redis_client))
    assert redis_client.get(keys.FORGETTABLE_SINCE) == noted
    assert on_disk(redis_server, b"erased-marker")
    redis_client.config_set("rdb-key-save-delay", "0")
    forgetting.run()
    assert not redis_client.exists(keys.REWRITING)
    clock.now = FORGET_S
    forget(forgetting, redis_client)
    wait_until(lambda: not on_disk(redis_server, b"erased-marker"))


def test_rewrite_of_a_server_that_died_does_not_count(redis_server, redis_client, job_store):
    watch = Forgetting(redis_client, 3600)
    run_until_quiet(watch, redis_client)
    redis_client.set(keys.REWRITING, "1000 another-run 1 1")
    watch.run()
    assert redis_client.get(keys.FORGETTABLE_SINCE) == b"1000"
    assert not redis_client.exists(keys.REWRITING)


def test_server_that_refuses_the_command_keeps_the_note(redis_client, job_store, forgetting):
    job_store.erase(marked_job(job_store, "x"))
    noted = redis_client.get(keys.FORGETTABLE_SINCE)
    redis_client.execute_command("ACL", "SETUSER", "default", "-bgrewriteaof")
    with capture_logs() as logs:
        wait_until(lambda: forgetting.run() or logs)
        forgetting.run()
    # It pauses: the next run does not try again.
    assert [line["event"] for line in logs] == ["append_only_file_not_rewritten"]
    assert redis_client.get(keys.FORGETTABLE_SINCE) == noted
    assert not redis_client.exists(keys.REWRITING)


def test_user_of_the_containers_may_rewrite(redis_server, redis_client, job_store):
    start = (REPOSITORY / "deploy/redis/start.sh").read_text()
    (rules,) = re.findall(r"^user evascore on #\$hash (.*)$", start, re.MULTILINE)
    redis_client.execute_command("ACL", "SETUSER", "evascore", "on", "nopass", *rules.split())
    job_store.erase(marked_job(job_store, "erased-marker"))
    with redis.Redis(port=redis_server.port, username="evascore", password="any") as client:  # noqa: S106
        forget(Forgetting(client, FORGET_S), client)
    wait_until(lambda: not on_disk(redis_server, b"erased-marker"))


def test_full_redis_forgets_too(redis_server, redis_client, job_store, forgetting):
    task_id = marked_job(job_store, "erased-marker")
    redis_client.config_set("maxmemory", "1mb")
    with pytest.raises(redis.OutOfMemoryError):
        redis_client.set("x", "x" * 2_000_000)
    job_store.erase(task_id)
    forget(forgetting, redis_client)
    wait_until(lambda: not on_disk(redis_server, b"erased-marker"))
