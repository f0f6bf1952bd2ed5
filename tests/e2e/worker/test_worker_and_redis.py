"""A real worker whose Redis is full, cut off or silently dead: it lives, and blames no job."""

import signal
import time

import orjson
import pytest

from contract import keys
from contract.queue_messages import task_message
from tests.conftest import wait_until
from tests.proxy import Proxy
from tests.waiting_messages import put_unbound
from tests.worker_process import LONG_TEXT_BYTES, a_job, final, submit

# The time limit of the fetch is `redis_timeout_s` (2 s), and the new connection takes 1 s; the rest
# is for a busy machine. Without the check it would take for ever.
RECOVERY_S = 60


@pytest.fixture
def proxy(redis_server):
    """A proxy in front of the test's Redis."""
    proxy = Proxy(redis_server.port)
    yield proxy
    proxy.close()


def kill_connections(redis_client):
    """Cut every connection to Redis but this one."""
    redis_client.client_kill_filter(skipme=True, _type="normal")
    redis_client.client_kill_filter(skipme=True, _type="pubsub")


def is_aboard(redis_client, name, task_id):
    return redis_client.sismember(keys.aboard(f"{name}@test"), task_id)


def deaths(redis_client, task_id):
    return int(redis_client.hget(keys.crashes(task_id), "deaths") or 0)


def test_full_redis_ends_no_worker_that_reconnects(job_store, new_worker, redis_client):
    worker = new_worker().start().wait_ready()
    task_id = submit(job_store, 10)
    final(job_store, task_id)
    redis_client.config_set("maxmemory", 1)
    for _ in range(3):
        kill_connections(redis_client)
        time.sleep(1)
    assert worker.process.poll() is None
    redis_client.config_set("maxmemory", 0)
    assert final(job_store, submit(job_store, 10)).state == "SUCCESS"
    assert worker.process.poll() is None


def test_full_redis_gets_the_scores_of_all_jobs_that_wait(job_store, new_worker, redis_client):
    worker = new_worker().start().wait_ready()
    worker.send(signal.SIGSTOP)
    ids = [submit(job_store, 10, priority=priority) for priority in keys.PRIORITY_STEPS]
    redis_client.config_set("maxmemory", 1)
    kill_connections(redis_client)
    worker.send(signal.SIGCONT)
    assert [final(job_store, task_id).state for task_id in ids] == ["SUCCESS"] * 2
    worker.stop()
    # A worker that starts again takes its lease there, too.
    wait_until(lambda: not redis_client.exists(keys.lease("w@test")))
    worker.start()
    wait_until(lambda: redis_client.exists(keys.lease("w@test")))


@pytest.mark.parametrize("refusal", ["disk", "replicas"])
def test_result_that_redis_refuses_is_kept_and_not_scored_again(
    job_store, new_worker, redis_client, redis_server, refusal
):
    worker = new_worker().hold().start().wait_ready()
    task_id = submit(job_store, 10)
    worker.wait_held()
    if refusal == "disk":
        redis_server.fill_disk()
    else:
        redis_client.config_set("min-replicas-to-write", 1)
    worker.let_go()
    wait_until(lambda: worker.log.read_text().count("endings_refused") > 2)
    redis_server.clear_disk()
    redis_client.config_set("min-replicas-to-write", 0)
    assert final(job_store, task_id).state == "SUCCESS"
    assert worker.log.read_text().count("micro_batch_scored") == 1
    assert final(job_store, submit(job_store, 10)).state == "SUCCESS"
    assert "worker_stopped" not in worker.log.read_text()


def test_worker_that_ends_while_redis_refuses_writes_blames_nobody(
    job_store, new_worker, redis_client
):
    worker = new_worker().hold().start().wait_ready()
    task_id = submit(job_store, 10)
    worker.wait_held()
    redis_client.config_set("min-replicas-to-write", 1)
    worker.let_go()
    wait_until(lambda: "endings_refused" in worker.log.read_text())
    worker.send(signal.SIGTERM)
    assert worker.wait_exit() == 0
    redis_client.config_set("min-replicas-to-write", 0)
    worker.start()
    assert final(job_store, task_id).state == "SUCCESS"
    assert deaths(redis_client, task_id) == 0


def test_result_that_is_too_large_for_a_slow_redis_fails_alone(job_store, new_worker, proxy):
    worker = new_worker(redis_url=proxy.url, redis_timeout_s="1").start().wait_ready()
    worker.send(signal.SIGSTOP)
    # The result of this text takes 5 MB: at 200 kB/s longer than all tries together, also
    # where the buffers of both sockets take a whole try, which then arrives.
    large = a_job(2000)
    large.requests[0] |= {"outputs": ["bytes", "top_k"], "top_k": 320}
    large_id = job_store.submit(large).task_id
    ids = [submit(job_store, 10) for _ in range(3)]
    proxy.slow_down(bytes_per_s=200_000)
    worker.send(signal.SIGCONT)
    assert [final(job_store, task_id).state for task_id in ids] == ["SUCCESS"] * 3
    assert job_store.read(large_id).state == "STARTED"
    record = final(job_store, large_id)
    assert (record.state, record.error["code"]) == ("FAILURE", "result_not_stored")
    assert record.error["reason"] == "slow"
    [status] = wait_until(lambda: [s for s in job_store.worker_statuses() if s.refused_endings])
    assert status.refused_endings["slow"] >= 4
    assert status.silent_s < 10
    proxy.slow_down(None)
    assert final(job_store, submit(job_store, 10)).state == "SUCCESS"
    # Not earlier: the worker logs an ending when it has the answer, which this test may have first.
    log = worker.log.read_text()
    assert log.count("result_not_stored") == 1
    assert (
        sum(
            orjson.loads(line).get("bytes") == 2000
            for line in log.splitlines()
            if "micro_batch_scored" in line
        )
        <= 1
    )


def test_exit_by_an_error_elsewhere_does_not_count_against_a_job(
    job_store, new_worker, redis_client
):
    worker = new_worker(micro_batch_texts="1").hold().start().wait_ready()
    task_id = submit(job_store, 10, 10)
    worker.wait_held()
    worker.send(signal.SIGQUIT)  # Celery's cold shutdown: an exit without regard to its jobs
    worker.let_go()
    worker.wait_exit()
    assert not redis_client.exists(keys.aboard("w@test"), keys.lease("w@test"))
    assert "worker_stopped" in worker.log.read_text()
    worker.start()
    assert final(job_store, task_id).state == "SUCCESS"
    assert deaths(redis_client, task_id) == 0


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGTERM, "Redis goes away"])
def test_worker_that_ends_without_a_turn_after_its_fetch_was_not_scoring(
    job_store, new_worker, redis_client, redis_server, how
):
    worker = new_worker().start().wait_ready()
    assert final(job_store, submit(job_store, 10)).state == "SUCCESS"
    mark = worker.log.parent / "data" / "cache" / "scoring" / "w@test"
    wait_until(lambda: mark.read_bytes() == b"0")
    # A client without messages ends the wait, and the fetch brings nothing.
    [status] = job_store.worker_statuses()
    turns = keys.turns(status.model["fingerprint"], keys.INTERACTIVE)

    def has_marked() -> bool:
        # Again and again: a fetch after a wait that ended by itself takes it away without a mark.
        redis_client.rpush(turns, "nobody")
        return mark.read_bytes() == b"1"

    wait_until(has_marked)
    if isinstance(how, str):
        redis_server.kill()
    else:
        worker.send(how)
        worker.wait_exit()
    wait_until(lambda: mark.read_bytes() == b"0")


def test_worker_that_ends_its_drain_without_redis_blames_nobody(
    job_store, new_worker, redis_client, proxy
):
    times = {"lease_s": "2", "drain_s": "0.1"}
    worker = new_worker(redis_url=proxy.url, **times).hold().start().wait_ready()
    task_id = submit(job_store, 10)
    worker.wait_held()
    proxy.cut()
    worker.send(signal.SIGTERM)
    assert worker.wait_exit() == 0
    assert "jobs_not_given_back" in worker.log.read_text()
    proxy.mend()
    worker.let_go()
    worker.start()
    assert final(job_store, task_id).state == "SUCCESS"
    assert deaths(redis_client, task_id) == 0


def test_death_while_scoring_counts_once(job_store, new_worker, redis_client):
    worker = new_worker().hold().start().wait_ready()
    task_id = submit(job_store, 10)
    worker.wait_held()
    worker.send(signal.SIGKILL)
    worker.wait_exit()
    worker.let_go()
    worker.start()
    assert final(job_store, task_id).state == "SUCCESS"
    assert deaths(redis_client, task_id) == 1


def test_worker_killed_while_it_waits_for_redis_blames_nobody(
    job_store, new_worker, redis_client, redis_server
):
    worker = new_worker().hold().start().wait_ready()
    task_id = submit(job_store, 10)
    # Not only aboard: Redis would die before the worker has its answer.
    worker.wait_held()
    redis_server.kill()
    worker.let_go()
    wait_until(lambda: "micro_batch_scored" in worker.log.read_text())
    worker.stop()
    redis_server.start()
    assert is_aboard(redis_client, "w", task_id)
    worker.start()
    assert final(job_store, task_id).state == "SUCCESS"
    assert deaths(redis_client, task_id) == 0


def test_two_partitions_blame_no_job(job_store, new_worker, redis_client, proxy):
    cut_off = new_worker("cut", redis_url=proxy.url, lease_s="2").hold().start().wait_ready()
    peer = new_worker("peer", lease_s="2").start().wait_ready()
    for _ in range(2):
        cut_off.hold()
        peer.send(signal.SIGSTOP)
        task_id = submit(job_store, 10)
        cut_off.wait_held()
        proxy.cut()
        cut_off.let_go()
        peer.send(signal.SIGCONT)
        assert final(job_store, task_id).state == "SUCCESS"
        assert redis_client.zscore(keys.MISSING, "cut@test")
        time.sleep(2)
        proxy.mend()
        wait_until(lambda: not redis_client.zscore(keys.MISSING, "cut@test"))
        wait_until(lambda: redis_client.exists(keys.lease("cut@test")))
        assert not redis_client.exists(keys.missing_aboard("cut@test"))
        assert deaths(redis_client, task_id) == 0
    assert cut_off.process.poll() is None
    assert "worker_died_while_scoring" not in peer.log.read_text()
    peer.stop()
    assert final(job_store, submit(job_store, 10)).state == "SUCCESS"


def test_silently_dead_fetch_connection_is_replaced_in_seconds(job_store, new_worker, proxy):
    new_worker(redis_url=proxy.url).start().wait_ready()
    final(job_store, submit(job_store, 10))
    wait_until(lambda: proxy.swallow(b"BLMOVE"))
    began = time.monotonic()
    assert final(job_store, submit(job_store, 10)).state == "SUCCESS"
    assert time.monotonic() - began < RECOVERY_S


def test_connection_lost_with_jobs_in_hand_ends_no_worker(
    job_store, new_worker, redis_client, redis_server
):
    # One text a turn, so that the next fetch is sent and a turn follows at once.
    worker = new_worker(micro_batch_bytes=str(LONG_TEXT_BYTES)).start().wait_ready()
    # More than it scores while this test looks away for some seconds.
    ids = [submit(job_store, *[LONG_TEXT_BYTES] * 3) for _ in range(12)]

    def num_opened() -> int:
        return worker.log.read_text().count("job_opened")

    before = 0
    for _ in range(3):
        # Not only STARTED, which Redis knows of an earlier round: the worker has reached it again.
        wait_until(lambda before=before: num_opened() > before)
        redis_server.kill()
        time.sleep(1.5)
        before = num_opened()
        redis_server.start()
    assert [final(job_store, task_id).state for task_id in ids] == ["SUCCESS"] * len(ids)
    assert worker.process.poll() is None
    assert [deaths(redis_client, task_id) for task_id in ids] == [0] * len(ids)


def test_second_copy_of_a_message_in_one_fetch_is_dropped(job_store, new_worker, redis_client):
    worker = new_worker().start().wait_ready()
    worker.send(signal.SIGSTOP)
    task_id = submit(job_store, 10)
    other = submit(job_store, 10)
    put_unbound(redis_client, task_message(task_id, 10, keys.INTERACTIVE))
    worker.send(signal.SIGCONT)
    assert [final(job_store, each).state for each in (task_id, other)] == ["SUCCESS"] * 2
    log = worker.log.read_text().partition("worker_ready")[2]
    assert "second_copy_dropped" in log
    assert "Connection" not in log
    assert not redis_client.hlen(keys.unacked("w@test"))
