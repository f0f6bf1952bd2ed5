"""The stores while Redis is away: one error for every call, and a guard that is entered once."""

import time

import pytest
import redis
import zstandard

from contract import keys
from contract.api_keys import Quota
from contract.batches import Batch, Part
from contract.errors import BrokerUnavailable
from contract.messages import Apart, Job, Record
from contract.service_clock import CLOCK
from contract.settings import load_settings
from contract.store.admission.outcomes import Idempotency
from contract.store.batches.batch_store import BatchStore
from contract.store.connection.broker import connect
from contract.store.connection.broker_guard import PAUSE_S, BrokerGuard
from contract.store.jobs.job_store import JobStore
from contract.store.overview import OverviewReader
from deploy.embedded_redis import free_port

# Those that the worker calls, and Celery reconnects on their Redis errors.
WORKERS_METHODS = {
    *("open_jobs", "conclude", "note_aboard", "are_wanted", "id_secret"),
    *("facts", "set_aside", "park", "pass_on", "models", "keep_opened"),
    *("note_started", "note_model_drifted", "drop_message", "give_up", "queue_again", "has_passed"),
}


class Clock:
    """A clock that stands still until it is moved."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def a_job() -> Job:
    now = time.time()
    return Job([{"text": "x"}], 1, now, now + 60, is_single=False)


def a_record(task_id: str) -> Record:
    """The record of a job whose result `{}` is stored apart."""
    return Record(task_id, "SUCCESS", apart=Apart(num_bytes=2, num_errors=0))


def calls_of_jobs(store: JobStore, task_id: str):
    """A call of each method of the job store that the web tier uses."""
    promise = Idempotency("key", "request")
    return {
        "submit": lambda: (store.submit(a_job(), promise), store.submit(a_job(), promise)),
        "read": lambda: store.read(task_id),
        "result_pieces": lambda: list(store.result_pieces(a_record(task_id))),
        "with_result": lambda: store.with_result(a_record(task_id)),
        "cancel": lambda: store.cancel(task_id),
        "new_id": store.new_id,
        "is_owned_by": lambda: store.is_owned_by(task_id, ""),
        "erase": lambda: store.erase(task_id),
        "depth": store.depth,
        "check_writable": store.check_writable,
        "worker_statuses": store.worker_statuses,
        "current_models": store.current_models,
        "has_model_drifted": store.has_model_drifted,
        "now": store.now,
    }


def calls_of_batches(store: BatchStore, batch: Batch):
    """A call of each method of the batch store, all of which the web tier uses."""
    return {
        "new_id": store.new_id,
        "load": store.load,
        "store_parts": lambda: store.store_parts(batch.id, [(Part(0, 1, 1), a_job())]),
        "accept": lambda: store.accept(batch, work_bytes=batch.num_bytes),
        "read": lambda: store.read(batch.id),
        "results": lambda: store.results(batch.id, 0, 1, 1),
        "result_pieces": lambda: list(store.result_pieces(batch.id, Part(0, 1, 1))),
        "cancel": lambda: store.cancel(batch.id),
        "check_quota": lambda: store.check_quota(Quota("a", requests_per_minute=1)),
        "take_request": lambda: store.take_request(Quota("a", requests_per_minute=1)),
        "erase": lambda: store.erase(batch.id),
        "discard_upload": lambda: store.discard_upload(batch.id),
        "now": store.now,
    }


def public_methods(store: object) -> set[str]:
    return {name for name in dir(store) if not name.startswith("_")}


def a_batch(batch_id: str) -> Batch:
    now = time.time()
    return Batch(batch_id, 1, 1, 1, created_at=now, deadline_at=now + 60)


def test_every_call_of_the_web_tier_fails_as_broker_unavailable(monkeypatch):
    # As in a process that has just started.
    monkeypatch.setattr(CLOCK, "_noted", None)
    settings = load_settings({"EVASCORE_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"})
    with connect(settings) as client:
        jobs = JobStore(client, settings)
        batches = BatchStore(client, settings, jobs)
        calls = [calls_of_jobs(jobs, "x"), calls_of_batches(batches, a_batch("x"))]
        assert calls[0].keys() == public_methods(jobs) - WORKERS_METHODS
        assert calls[1].keys() == public_methods(batches)
        overview = OverviewReader(client, settings, BrokerGuard())
        for call in (*calls[0].values(), *calls[1].values(), overview.read):
            with pytest.raises(BrokerUnavailable):
                call()


def test_call_that_tries_a_silent_redis_again_does_not_refuse_itself(redis_client, settings):
    """Each method as the one call that may try: a guard within a guard would refuse it."""
    clock = Clock()
    guard = BrokerGuard(clock)
    jobs = JobStore(redis_client, settings, guard)
    batches = BatchStore(redis_client, settings, jobs, guard)
    task_id = jobs.submit(a_job()).task_id
    redis_client.set(keys.result(task_id), zstandard.compress(b"{}"))
    batch_id = batches.new_id()
    redis_client.hset(keys.batch_results(batch_id), "0", zstandard.compress(b"{}\n"))
    calls = (
        *calls_of_jobs(jobs, task_id).values(),
        *calls_of_batches(batches, a_batch(batch_id)).values(),
        OverviewReader(redis_client, settings, guard).read,
    )
    for call in calls:
        with pytest.raises(BrokerUnavailable), guard.calling():
            raise redis.TimeoutError
        clock.now_s += PAUSE_S + 0.01
        call()


def test_stores_that_share_a_guard_refuse_together(redis_client, settings):
    guard = BrokerGuard(Clock())
    jobs = JobStore(redis_client, settings, guard)
    batches = BatchStore(redis_client, settings, jobs, guard)
    with pytest.raises(BrokerUnavailable), guard.calling():
        raise redis.TimeoutError
    for call in (jobs.depth, batches.load):
        with pytest.raises(BrokerUnavailable):
            call()


def test_worker_meets_the_errors_of_redis_themselves():
    settings = load_settings({"EVASCORE_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"})
    with connect(settings) as client:
        jobs = JobStore(client, settings)
        for call in (
            lambda: jobs.open_jobs(["a"]),
            lambda: jobs.are_wanted(["a"]),
            lambda: jobs.note_aboard(["a"], "w"),
            lambda: jobs.note_started("w"),
            lambda: jobs.note_model_drifted("w"),
            lambda: jobs.facts("a"),
            lambda: jobs.set_aside("message", "not_json", num_bytes=1),
            lambda: jobs.park("a", 2, "w"),
            lambda: jobs.pass_on("a", "0" * 12, "w"),
            lambda: jobs.queue_again("a", "a", "w"),
            lambda: jobs.models.make_current("a", "0" * 12),
        ):
            with pytest.raises(redis.ConnectionError):
                call()
