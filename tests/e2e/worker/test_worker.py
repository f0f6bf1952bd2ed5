"""A real worker process on a real Redis: what it takes, in which order, and what it gives back."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
from pathlib import Path

import pytest

from contract import keys
from contract.settings import DEMO_CHECKPOINT, REPOSITORY
from contract.store.jobs.job_store import JobStore
from model.weights.checkpoint import revision_of
from tests.conftest import wait_until
from tests.waiting_messages import waiting
from tests.worker_process import LONG_TEXT_BYTES, Worker, final, is_started, submit


def test_worker_with_celerys_default_options_scores_what_waits(job_store, new_worker, redis_client):
    ids = [submit(job_store, size) for size in (1, 20, 300)]
    new_worker().start()
    records = [final(job_store, task_id) for task_id in ids]
    assert [record.result["num_bytes"] for record in records] == [1, 20, 300]
    assert records[0].result["batch"]["texts"] == 3
    assert job_store.depth().jobs == 0
    assert redis_client.hlen(keys.unacked("w@test")) == 0


def test_interactive_text_overtakes_a_bulk_job_in_progress(job_store, new_worker):
    new_worker(micro_batch_bytes=str(LONG_TEXT_BYTES)).start().wait_ready()
    # More than it scores while this test looks away for some seconds.
    bulk = submit(job_store, *[LONG_TEXT_BYTES] * 200, priority=keys.BULK)
    wait_until(lambda: is_started(job_store, bulk))
    quick = submit(job_store, 10)
    final(job_store, quick)
    assert job_store.read(bulk).state == "STARTED"
    job_store.cancel(bulk)


def test_cancelled_bulk_job_stops_before_its_end(job_store, new_worker, redis_client):
    worker = new_worker(micro_batch_bytes=str(LONG_TEXT_BYTES)).hold().start().wait_ready()
    bulk = submit(job_store, *[LONG_TEXT_BYTES] * 200, priority=keys.BULK)
    worker.wait_held()
    job_store.cancel(bulk)
    worker.let_go()
    assert final(job_store, submit(job_store, 10)).state == "SUCCESS"
    assert job_store.read(bulk).state == "REVOKED"
    wait_until(lambda: redis_client.hlen(keys.unacked("w@test")) == 0)
    # The one that was in hand, and that of the other job.
    assert worker.log.read_text().count("micro_batch_scored") == 2


def test_expired_and_cancelled_jobs_are_never_scored(job_store, new_worker):
    expired = submit(job_store, 10, deadline_s=0.01)
    cancelled = submit(job_store, 10)
    job_store.cancel(cancelled)
    erased = submit(job_store, 10)
    job_store.erase(erased)
    last = submit(job_store, 10)
    new_worker().start()
    assert final(job_store, last).result["batch"]["texts"] == 1
    record = final(job_store, expired)
    assert (record.state, record.error["code"]) == ("REVOKED", "job_expired")
    assert job_store.read(cancelled).error["code"] == "job_cancelled"


def test_job_sent_while_an_idle_worker_was_frozen_survives_its_death(job_store, new_worker):
    worker = new_worker().start().wait_ready()
    worker.send(signal.SIGSTOP)
    ids = [submit(job_store, 10) for _ in range(5)]
    worker.send(signal.SIGKILL)
    worker.wait_exit()
    worker.start()
    assert [final(job_store, task_id).state for task_id in ids] == ["SUCCESS"] * 5


def test_peer_takes_over_when_the_lease_of_a_killed_worker_lapses(
    job_store, new_worker, redis_client
):
    first = new_worker("first", lease_s="2").hold().start().wait_ready()
    task_id = submit(job_store, 10)
    first.wait_held()
    first.send(signal.SIGKILL)
    new_worker("second", lease_s="2").start()
    assert final(job_store, task_id).state == "SUCCESS"
    assert redis_client.smembers(keys.WORKERS) == {b"second@test"}


def test_sigterm_finishes_the_batch_in_hand_and_gives_the_rest_back(
    job_store, new_worker, redis_client
):
    worker = new_worker(micro_batch_bytes=str(LONG_TEXT_BYTES)).hold().start().wait_ready()
    ids = [submit(job_store, LONG_TEXT_BYTES) for _ in range(8)]
    # Not only STARTED: the worker may not have the answer of its fetch yet.
    worker.wait_held()
    worker.send(signal.SIGTERM)
    worker.let_go()
    assert worker.wait_exit() == 0
    states = [job_store.read(task_id).state for task_id in ids]
    assert [state == "SUCCESS" for state in states] == [True] + [False] * 7
    assert len(waiting(redis_client)) == 7
    assert job_store.worker_statuses() == []


def test_batch_that_outlasts_the_drain_is_given_back_without_blame(
    job_store, new_worker, redis_client
):
    worker = new_worker(lease_s="2", drain_s="0.1").hold().start().wait_ready()
    task_id = submit(job_store, 10)
    worker.wait_held()
    worker.send(signal.SIGTERM)
    assert worker.wait_exit() == 0
    assert job_store.read(task_id).state == "STARTED"
    (message,) = waiting(redis_client)
    assert b'"redelivered":true' in message
    assert not redis_client.exists(keys.crashes(task_id))


@pytest.mark.parametrize("runs_it", [(), ("tests.fakes.first_process",)], ids=["", "as_first_one"])
def test_worker_that_is_stopped_while_it_starts_is_not_lost(redis_client, new_worker, runs_it):
    worker = new_worker(lease_s="300")
    worker.arguments[:0] = runs_it
    worker.start()
    # The second phase reads the model. If that is over already, it stops as any worker does.
    wait_until(lambda: worker.log.read_text().count("startup_phase") > 1)
    worker.send(signal.SIGTERM)
    assert worker.wait_exit() in (128 + signal.SIGTERM if runs_it else -signal.SIGTERM, 0)
    assert "worker_ready" not in worker.log.read_text() or worker.wait_exit() == 0
    assert not redis_client.exists(keys.lease("w@test"))
    assert not redis_client.smembers(keys.WORKERS)


def test_hung_batch_ends_its_worker_and_its_job_after_three_tries(job_store, new_worker):
    worker = new_worker(lease_s="2", drain_s="2", micro_batch_timeout_s="2").hold()
    task_id = submit(job_store, 10)
    for _ in range(3):
        assert worker.start().wait_exit() == os.EX_SOFTWARE
    worker.start()
    assert final(job_store, task_id).error["code"] == "poison_job"


def test_second_worker_of_the_same_name_refuses_to_start(job_store, new_worker):
    # With the default lease: one that is frozen for a moment does not lose its name.
    new_worker().start().wait_ready()
    twin = new_worker().start()
    assert twin.wait_exit() == os.EX_CONFIG
    assert "EVASCORE_WORKER_NAME" in twin.log.read_text()


def test_workers_of_the_fleet_command_have_the_names_that_it_gives(new_worker, redis_client):
    guide = (REPOSITORY / "docs" / "deploy.md").read_text().replace("\\\n", "")
    (line,) = re.findall(r"^EVASCORE_.* \.venv/bin/(celery .*)$", guide, re.MULTILINE)
    (name,) = re.findall(r"EVASCORE_WORKER_NAME=(\S+) .* \.venv/bin/celery", guide)
    names = (name, f"{name}b")
    for each in names:
        # Two on one host: without names of their own, the second one would refuse to start.
        worker = new_worker(each, worker_name=each)
        worker.arguments = shlex.split(line)
        worker.start().wait_ready()
    expected = {f"{each}@{socket.gethostname()}".encode() for each in names}
    # A worker that was frozen for a moment is back at its next renewal.
    wait_until(lambda: redis_client.smembers(keys.WORKERS) == expected)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"model": "/nowhere"}, "/nowhere"),
        ({"device": "cuda"}, "GPU"),
        ({"port": "x"}, "PORT"),
        ({"health_file": "/nowhere/warm"}, "EVASCORE_HEALTH_FILE"),
    ],
    ids=["checkpoint", "device", "setting", "health_file"],
)
def test_worker_that_cannot_work_says_why_in_one_line(redis_server, new_worker, wrong, said):
    worker = new_worker(**wrong).start()
    assert worker.wait_exit() == os.EX_CONFIG
    (line,) = [
        line for line in worker.log.read_text().splitlines() if line.startswith("evascore worker:")
    ]
    assert said in line


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [("unknown", 1, "all devices are busy"), ("memory", os.EX_CONFIG, "did not fit")],
)
def test_worker_whose_model_fails_at_the_start_ends_and_says_why(
    redis_server, new_worker, error, status, said
):
    worker = new_worker()
    worker.arguments[:1] = ["tests.fakes.failing_worker", error]
    assert worker.start().wait_exit() == status
    log = worker.log.read_text()
    (line,) = [line for line in log.splitlines() if line.startswith("evascore worker:")]
    assert said in line
    # Celery goes on after an error in a receiver, to fail later for want of a model.
    assert "AssertionError" not in log


def test_worker_whose_memory_was_taken_gives_its_jobs_back(job_store, new_worker, redis_client):
    worker = new_worker()
    worker.arguments[:1] = ["tests.fakes.failing_worker", "taken"]
    ids = [submit(job_store, 10) for _ in range(3)]
    assert worker.start().wait_exit() == os.EX_TEMPFAIL
    assert '"memory_taken"' in worker.log.read_text()
    assert len(waiting(redis_client)) == 3
    # The next worker scores them, and counts no crash.
    worker.arguments[:2] = ["celery"]
    worker.start()
    assert [final(job_store, task_id).state for task_id in ids] == ["SUCCESS"] * 3
    assert not redis_client.keys(keys.crashes("*"))


@pytest.fixture
def damaged_demo(tmp_path: Path) -> Path:
    """A copy of the demo checkpoint in which one page of the weights is zeros."""
    folder = tmp_path / "demo"
    shutil.copytree(DEMO_CHECKPOINT, folder)
    with (folder / "model.safetensors").open("r+b") as weights:
        weights.seek(2_000_000)
        weights.write(bytes(65_536))
    return folder


def assert_stops_as_drifted(worker: Worker, store: JobStore, said: str) -> None:
    """It scores nothing, and tells the operator in its log, on one line, and in Redis."""
    waiting = submit(store, 10)
    assert worker.start().wait_exit() == os.EX_CONFIG
    lines = worker.log.read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("evascore worker:")]
    assert said in line
    (event,) = [json.loads(line) for line in lines if '"model_drifted"' in line]
    assert event["level"] == "error"
    assert said in event["reason"]
    assert store.has_model_drifted()
    assert store.read(waiting).state == "QUEUED"


def test_worker_does_not_score_with_damaged_weights(job_store, new_worker, damaged_demo):
    worker = new_worker(model=str(damaged_demo))
    assert_stops_as_drifted(worker, job_store, "copy the checkpoint again")


def test_worker_sees_damage_by_the_score_alone(job_store, new_worker, damaged_demo):
    canary = json.loads((damaged_demo / "canary.json").read_text())
    canary["weights"] = revision_of((damaged_demo / "model.safetensors",))
    (damaged_demo / "canary.json").write_text(json.dumps(canary))
    expected_nats = canary["log_likelihood_nats"]["float32"]["none"]
    worker = new_worker(model=str(damaged_demo))
    assert_stops_as_drifted(worker, job_store, f"expected score is {expected_nats:.4f}")


def test_worker_compares_with_its_own_first_start(job_store, redis_client, new_worker, tmp_path):
    job_store.note_model_drifted("an earlier worker")
    worker = new_worker().start().wait_ready()
    wait_until(lambda: not job_store.has_model_drifted())
    worker.stop()
    (record,) = (tmp_path / "data" / "cache" / "canary").iterdir()
    record.write_text('{"log_likelihood_nats": -1.5}')
    worker.log.write_text("")
    assert_stops_as_drifted(worker, job_store, "expected score is -1.5")
    # A start counts even if no model is loaded.
    assert redis_client.get(keys.starts("w@test")) == b"2"
