"""A job is scored by the model that it is bound to, on a real Redis with two models of one name."""

import time
from dataclasses import replace

import pytest

from contract import keys
from contract.batches import Batch, Part, PartId, part_results
from contract.errors import JobExpired
from contract.messages import Job, success_record
from contract.queue_messages import decode_message
from contract.store.batches.batch_store import BatchStore
from contract.store.jobs.endings import Ending
from contract.worker_status import WorkerStatus
from tests.waiting_messages import EXPRESS, put_unbound, take
from worker.recovery.orphans import READ_AGAIN_S, TAKE_BACK_S, Orphans
from worker.scoring.outcomes import failed_ending

NAME, OLD, NEW, OTHER = "mine", "0" * 12, "1" * 12, "2" * 12
LEASE_S = 5.0
# As an operator may set EVASCORE_MAX_UPLOAD_DEADLINE_S.
MAX_WAIT_S = 7 * 86_400.0


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class RunningClock(Clock):
    """A clock that goes on each time that it is read."""

    tick_s = 0.03

    def __call__(self) -> float:
        self.now += self.tick_s
        return self.now


@pytest.fixture
def batches(redis_client, job_store, settings):
    return BatchStore(redis_client, settings, job_store)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def orphans(redis_client, job_store, clock):
    return Orphans(redis_client, job_store, lease_s=LEASE_S, max_wait_s=MAX_WAIT_S, clock=clock)


@pytest.fixture
def lives(redis_client):
    """Has a worker of a model hold its lease; '' lets all of them die."""

    def live(*fingerprints: str, name: str = NAME) -> None:
        redis_client.delete(keys.WORKERS)
        for fingerprint in fingerprints:
            model = {"name": name, "fingerprint": fingerprint}
            status = WorkerStatus(name=f"w{fingerprint}", state="ready", model=model)
            redis_client.sadd(keys.WORKERS, status.name)
            redis_client.set(keys.lease(status.name), status.encode())

    return live


@pytest.fixture
def replaced(job_store, lives, orphans, clock):
    """Has NEW take over from OLD, whose workers have ended; the name is NAME."""

    def replace_model() -> None:
        job_store.models.make_current(NAME, NEW)
        lives(NEW)
        orphans.take_over(NAME, NEW)
        clock.now += LEASE_S + 0.1
        orphans.take_over(NAME, NEW)

    return replace_model


def a_job(**changes) -> Job:
    now = time.time()
    fields = {"model": NAME, "fingerprint": OLD, "client": "c", **changes}
    return Job([{"text": "x"}], 1, now, now + fields.pop("deadline_s", 60), **fields)


def a_batch(batches: BatchStore, num_parts: int = 3, **changes) -> str:
    now = time.time()
    batch_id = batches.new_id()
    for first in range(num_parts):
        requests = [{"text": "x", "custom_id": f"c{first}"}]
        job = Job(requests, 1, now, now + 60, is_single=False, priority=keys.BULK)
        batches.store_parts(batch_id, [(Part(first, 1, 64), job)])
    batch = Batch(batch_id, num_parts, num_parts, num_parts, now, now + 60, client="c")
    bound = replace(batch, **{"fingerprint": OLD, "model_name": NAME, **changes})
    return batches.accept(bound, work_bytes=64 * num_parts).batch_id


def queue(client, fingerprint: str, priority: int = keys.INTERACTIVE) -> list[str]:
    """Task IDs in the queue of a model, the next first within each client."""
    found = []
    for sender in reversed(client.lrange(keys.turns(fingerprint, priority), 0, -1)):
        name = keys.waiting(fingerprint, priority, sender.decode())
        messages = [decode_message(raw) for raw in client.lrange(name, 0, -1)[::-1]]
        assert {each.fingerprint for each in messages} == {fingerprint}
        found += [each.task_id for each in messages]
    return found


def score_part(job_store, task_id: PartId, fingerprint: str) -> str:
    """Score a part as a worker of a model does; the state that it is in then."""
    (opened,) = job_store.open_jobs([str(task_id)], None, fingerprint)
    assert opened.job is not None
    model = {"name": NAME, "fingerprint": fingerprint}
    results = part_results(task_id, opened.job.requests, [{"v": 1}], 64, model)
    record = success_record(str(task_id), None, opened.job.facts(), time.time())
    ending = Ending(str(task_id), record, results=results, fingerprint=fingerprint)
    return job_store.conclude([ending])[0]


def scored(job_store, task_id: str, fingerprint: str) -> str:
    record = success_record(task_id, {"by": fingerprint}, {}, time.time())
    return job_store.conclude([Ending(task_id, record, fingerprint=fingerprint)])[0]


# --- acceptance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("believed", [OLD, keys.UNBOUND])
def test_a_job_is_bound_to_the_model_that_is_current_when_it_is_accepted(
    job_store, redis_client, believed
):
    job_store.models.make_current(NAME, NEW)
    task_id = job_store.submit(a_job(fingerprint=believed)).task_id

    assert queue(redis_client, NEW) == [task_id]
    assert not queue(redis_client, believed)
    assert job_store.read(task_id).job["fingerprint"] == NEW


def test_a_job_for_one_exact_model_stays_with_that(job_store, redis_client):
    job_store.models.make_current(NAME, NEW)
    task_id = job_store.submit(a_job(is_pinned=True)).task_id

    assert queue(redis_client, OLD) == [task_id]
    assert OLD in job_store.models.fingerprints()


def test_a_batch_is_bound_to_the_model_that_is_current_when_it_is_accepted(
    job_store, batches, redis_client
):
    job_store.models.make_current(NAME, NEW)
    batch_id = a_batch(batches)

    assert batches.read(batch_id).fingerprint == NEW
    assert len(queue(redis_client, NEW, keys.BULK)) == 3


# --- the worker's own check -----------------------------------------------------------------------


def test_a_job_of_another_model_is_not_opened(job_store):
    task_id = job_store.submit(a_job()).task_id
    (opened,) = job_store.open_jobs([task_id], "w", NEW)

    assert (opened.elsewhere, opened.job) == (OLD, None)
    assert job_store.read(task_id).state == "QUEUED"
    (opened,) = job_store.open_jobs([task_id], "w", OLD)
    assert opened.job is not None


def test_a_job_of_another_model_is_put_into_its_queue(job_store, redis_client):
    task_id = job_store.submit(a_job()).task_id
    raw = take(redis_client)
    redis_client.hset(keys.unacked("w"), task_id, b"[" + raw + b', "", "evascore"]')
    job_store.pass_on(task_id, OLD, "w")
    job_store.pass_on(task_id, OLD, "w")

    assert queue(redis_client, OLD) == [task_id]
    assert not redis_client.exists(keys.unacked("w"))


def test_a_job_without_a_model_is_bound_by_the_worker_that_opens_it(job_store):
    task_id = job_store.submit(a_job(fingerprint=keys.UNBOUND, model="")).task_id

    assert job_store.open_jobs([task_id], "w", NEW)[0].job is not None
    assert job_store.open_jobs([task_id], "v", OLD)[0].elsewhere == NEW


def test_one_part_binds_its_batch(job_store, batches):
    batch_id = a_batch(batches, fingerprint=keys.UNBOUND, model_name="")

    assert score_part(job_store, PartId(batch_id, 1), NEW) == "SUCCESS"
    (opened,) = job_store.open_jobs([str(PartId(batch_id, 0))], "w", OLD)
    assert opened.elsewhere == NEW


def test_a_score_of_a_model_that_the_job_has_left_is_dropped(job_store, replaced):
    job_store.models.make_current(NAME, OLD)
    task_id = job_store.submit(a_job()).task_id
    replaced()

    assert scored(job_store, task_id, OLD) == "QUEUED"
    assert job_store.depth().jobs == 1
    assert scored(job_store, task_id, NEW) == "SUCCESS"
    assert job_store.read(task_id).result == {"by": NEW}


def test_a_score_of_a_model_that_the_batch_has_left_is_dropped(job_store, batches, replaced):
    job_store.models.make_current(NAME, OLD)
    batch_id = a_batch(batches)
    part = PartId(batch_id, 0)
    (late,) = job_store.open_jobs([str(part)], None, OLD)
    results = part_results(part, late.job.requests, [{"v": 0}], 64, {"fingerprint": OLD})
    record = success_record(str(part), None, {}, time.time())
    replaced()

    ending = Ending(str(part), record, results=results, fingerprint=OLD)
    assert job_store.conclude([ending]) == ["STARTED"]
    assert batches.read(batch_id).completed == 0
    assert [score_part(job_store, PartId(batch_id, n), NEW) for n in range(3)] == ["SUCCESS"] * 3
    assert batches.read(batch_id).model == {"name": NAME, "fingerprint": NEW}


# --- taking over ----------------------------------------------------------------------------------


def test_work_of_a_model_that_is_gone_moves_to_the_current_one_of_its_name(
    job_store, redis_client, replaced
):
    job_store.models.make_current(NAME, OLD)
    # The first job of a client is an express message, the others wait for its turn.
    ids = [job_store.submit(a_job(client=client)).task_id for client in "aabab"]
    before = queue(redis_client, OLD)
    replaced()

    assert queue(redis_client, NEW) == before
    assert sorted(before) == sorted(ids)
    assert not queue(redis_client, OLD)
    assert not redis_client.keys(f"*{OLD}*")
    for task_id in ids:
        assert job_store.open_jobs([task_id], None, OLD)[0].elsewhere == NEW


def test_more_messages_than_one_step_reads_are_moved_in_order(job_store, redis_client, replaced):
    job_store.models.make_current(NAME, OLD)
    ids = [job_store.submit(a_job()).task_id for _ in range(301)]
    replaced()

    assert queue(redis_client, NEW) == ids


def test_work_waits_for_as_long_as_a_worker_may_be_silent(
    job_store, redis_client, lives, orphans, clock
):
    job_store.models.make_current(NAME, OLD)
    task_id = job_store.submit(a_job()).task_id
    job_store.models.make_current(NAME, NEW)
    lives(NEW)
    orphans.take_over(NAME, NEW)
    clock.now += LEASE_S - 0.1
    orphans.take_over(NAME, NEW)
    lives(NEW, OLD)
    clock.now += LEASE_S
    orphans.take_over(NAME, NEW)
    lives(NEW)
    orphans.take_over(NAME, NEW)

    assert queue(redis_client, OLD) == [task_id]


@pytest.mark.parametrize(
    ("name", "current"), [("theirs", NEW), (NAME, OLD)], ids=["another name", "no other model"]
)
def test_work_waits_while_its_name_has_no_other_model(
    job_store, redis_client, lives, orphans, clock, name, current
):
    job_store.models.make_current(NAME, OLD)
    job_store.models.make_current(name, current)
    task_id = job_store.submit(a_job()).task_id
    lives(NEW, name=name)
    for _ in range(2):
        orphans.take_over(name, NEW)
        clock.now += LEASE_S + 1

    assert queue(redis_client, OLD) == [task_id]


def test_a_worker_whose_own_model_was_replaced_takes_nothing_over(
    job_store, redis_client, lives, orphans, clock
):
    job_store.models.make_current(NAME, OTHER)
    task_id = job_store.submit(a_job()).task_id
    job_store.models.make_current(NAME, OLD)
    task_id = job_store.submit(a_job()).task_id
    job_store.models.make_current(NAME, NEW)
    lives(OTHER)
    for _ in range(2):
        orphans.take_over(NAME, OTHER)
        clock.now += LEASE_S + 1

    assert queue(redis_client, OLD) == [task_id]


def test_a_name_goes_back_to_the_workers_that_are_left(
    job_store, redis_client, lives, orphans, clock
):
    job_store.models.make_current(NAME, OLD)
    job_store.models.make_current(NAME, NEW)
    task_id = job_store.submit(a_job()).task_id
    lives(OLD)
    orphans.take_over(NAME, OLD)
    clock.now += TAKE_BACK_S
    orphans.take_over(NAME, OLD)
    # A worker that is started again is given time to load its model.
    assert queue(redis_client, NEW) == [task_id]

    clock.now += 0.1
    orphans.take_over(NAME, OLD)
    assert job_store.models.current() == {NAME: OLD}
    assert queue(redis_client, OLD) == [task_id]
    assert job_store.read(task_id).job["fingerprint"] == OLD


def test_a_name_stays_with_a_newer_model_that_comes_back_in_time(job_store, lives, orphans, clock):
    job_store.models.make_current(NAME, OLD)
    job_store.models.make_current(NAME, NEW)
    for served in ([OLD], [OLD, NEW], [OLD]):
        lives(*served)
        orphans.take_over(NAME, OLD)
        clock.now += TAKE_BACK_S
    orphans.take_over(NAME, OLD)
    assert job_store.models.current() == {NAME: NEW}


def test_a_name_is_taken_back_only_from_the_model_that_is_gone(job_store):
    job_store.models.make_current(NAME, NEW)
    assert not job_store.models.replace(NAME, OTHER, OLD)
    assert job_store.models.current() == {NAME: NEW}
    assert job_store.models.replace(NAME, NEW, OLD)
    assert job_store.models.current() == {NAME: OLD}


def test_a_job_for_one_exact_model_that_is_gone_ends_with_an_error(
    job_store, redis_client, replaced
):
    task_id = job_store.submit(a_job(is_pinned=True)).task_id
    replaced()

    error = job_store.read(task_id).error
    assert (error["code"], error["retryable"]) == ("model_gone", True)
    assert job_store.depth().jobs == 0
    assert not redis_client.keys(f"*{OLD}*")


def test_a_batch_without_scores_moves_as_a_whole(job_store, batches, redis_client, replaced):
    job_store.models.make_current(NAME, OLD)
    batch_id = a_batch(batches)
    # A worker that died has fetched this one.
    lost = take(redis_client, keys.BULK)
    replaced()

    assert batches.read(batch_id).fingerprint == NEW
    assert len(queue(redis_client, NEW, keys.BULK)) == 2
    assert not queue(redis_client, OLD, keys.BULK)
    put_unbound(redis_client, lost, priority=keys.BULK)
    assert [score_part(job_store, PartId(batch_id, n), NEW) for n in range(3)] == ["SUCCESS"] * 3


def test_a_batch_whose_lines_failed_alone_moves(job_store, batches, redis_client, replaced):
    job_store.models.make_current(NAME, OLD)
    batch_id = a_batch(batches)
    (opened,) = job_store.open_jobs([f"{batch_id}.0"], None, OLD)
    job_store.conclude([failed_ending(f"{batch_id}.0", opened.job, JobExpired("late"))])
    replaced()

    batch = batches.read(batch_id)
    assert (batch.fingerprint, batch.failed) == (NEW, 1)
    assert len(queue(redis_client, NEW, keys.BULK)) == 2


@pytest.mark.parametrize("changes", [{}, {"is_pinned": True}], ids=["has scores", "pinned"])
def test_a_batch_that_one_model_must_score_ends_with_an_error_for_each_other_line(
    job_store, batches, redis_client, replaced, changes
):
    job_store.models.make_current(NAME, OLD)
    batch_id = a_batch(batches, **changes)
    if not changes:
        assert score_part(job_store, PartId(batch_id, 0), OLD) == "SUCCESS"
    replaced()

    batch = batches.read(batch_id)
    assert batch.is_final
    assert batch.fingerprint == OLD
    assert (batch.completed, batch.failed) == ((0, 3) if changes else (1, 2))
    lines = batches.results(batch_id, 0, 10, 10**6)
    assert len(lines) == 3
    assert not redis_client.keys(f"evascore:waiting:{OLD}*")


def test_what_was_accepted_before_any_model_was_known_goes_to_the_first(
    job_store, batches, redis_client, lives, orphans
):
    ids = [
        job_store.submit(a_job(fingerprint=keys.UNBOUND, model=model)).task_id
        for model in ("", NAME)
    ]
    batch_id = a_batch(batches, fingerprint=keys.UNBOUND, model_name="")
    job_store.models.make_current(NAME, NEW)
    lives(NEW)
    orphans.take_over(NAME, NEW)

    assert queue(redis_client, NEW) == ids
    assert len(queue(redis_client, NEW, keys.BULK)) == 3
    assert batches.read(batch_id).fingerprint == NEW
    assert job_store.read(ids[0]).job["model"] == NAME


def test_what_waits_for_a_name_does_not_go_to_another(job_store, redis_client, lives, orphans):
    task_id = job_store.submit(a_job(fingerprint=keys.UNBOUND)).task_id
    job_store.models.make_current("theirs", NEW)
    lives(NEW, name="theirs")
    orphans.take_over("theirs", NEW)

    assert queue(redis_client, keys.UNBOUND) == [task_id]


def test_what_expired_in_the_queue_of_a_gone_model_ends(
    job_store, redis_client, lives, orphans, clock
):
    job_store.models.make_current(NAME, OLD)
    task_id = job_store.submit(a_job(deadline_s=-1)).task_id
    erased = job_store.submit(a_job()).task_id
    job_store.erase(erased)
    lives(OTHER, name="theirs")
    for _ in range(2):
        orphans.take_over("theirs", OTHER)
        clock.now += LEASE_S + 1

    assert job_store.read(task_id).error["code"] == "job_expired"
    assert job_store.depth().jobs == 0
    assert not queue(redis_client, OLD)


def test_what_cannot_be_read_goes_to_a_worker_that_sets_it_aside(job_store, redis_client, replaced):
    job_store.models.make_current(NAME, OLD)
    task_id = job_store.submit(a_job()).task_id
    place = keys.waiting(OLD, keys.INTERACTIVE, EXPRESS)
    redis_client.lpush(place, b"garbage")
    redis_client.set(keys.record(task_id), b"garbage")
    replaced()

    moved = redis_client.lrange(keys.waiting(NEW, keys.INTERACTIVE, EXPRESS), 0, -1)
    assert len(moved) == 2
    assert b"garbage" in moved


def test_taking_over_goes_on_though_redis_is_full(job_store, redis_client, lives, orphans, clock):
    job_store.models.make_current(NAME, OLD)
    task_id = job_store.submit(a_job()).task_id
    lives(NEW)
    redis_client.config_set("maxmemory", 1)
    job_store.models.make_current(NAME, NEW)
    for _ in range(2):
        orphans.take_over(NAME, NEW)
        clock.now += LEASE_S + 1

    assert queue(redis_client, NEW) == [task_id]


def test_work_behind_more_of_another_name_than_one_step_reads_is_found(
    job_store, redis_client, lives, orphans
):
    theirs = [
        job_store.submit(a_job(fingerprint=keys.UNBOUND, model="theirs")).task_id
        for _ in range(130)
    ]
    mine = job_store.submit(a_job(fingerprint=keys.UNBOUND)).task_id
    job_store.models.make_current(NAME, NEW)
    lives(NEW)
    orphans.take_over(NAME, NEW)

    assert queue(redis_client, NEW) == [mine]
    assert sorted(queue(redis_client, keys.UNBOUND)) == sorted(theirs)


def test_a_job_whose_record_expired_leaves_the_counts(job_store, redis_client, replaced):
    job_store.models.make_current(NAME, OLD)
    task_id = job_store.submit(a_job()).task_id
    redis_client.delete(keys.record(task_id))
    replaced()

    assert queue(redis_client, OLD) == []
    assert job_store.depth().jobs == 0
    assert redis_client.hgetall(keys.LIVE_CLIENTS) == {}


def test_a_model_is_forgotten_once_nothing_can_wait_for_it(job_store, replaced, orphans, clock):
    job_store.models.make_current(NAME, OLD)
    replaced()
    assert OLD in job_store.models.fingerprints()
    for wait_s, left in ((1.9 * MAX_WAIT_S, {OLD, NEW}), (0.2 * MAX_WAIT_S, {NEW})):
        clock.now += wait_s
        orphans.take_over(NAME, NEW)
        assert job_store.models.fingerprints() == left


@pytest.fixture
def backlog(job_store) -> list[str]:
    """Jobs for another name whose worker is away, where every worker looks first."""
    job = a_job(fingerprint=keys.UNBOUND, model="theirs", deadline_s=3600)
    return [job_store.submit(job).task_id for _ in range(700)]


def test_backlog_of_another_name_does_not_hide_jobs_of_a_model_that_is_gone(
    job_store, redis_client, lives, backlog
):
    job_store.models.make_current(NAME, OLD)
    mine = [job_store.submit(a_job(deadline_s=3600)).task_id for _ in range(3)]
    job_store.models.make_current(NAME, NEW)
    lives(NEW)
    clock = RunningClock()
    orphans = Orphans(redis_client, job_store, lease_s=LEASE_S, max_wait_s=MAX_WAIT_S, clock=clock)
    orphans.take_over(NAME, NEW)
    clock.now += LEASE_S
    for _ in range(10):
        orphans.take_over(NAME, NEW)
    assert sorted(queue(redis_client, NEW)) == sorted(mine)
    assert sorted(queue(redis_client, keys.UNBOUND)) == sorted(backlog)


def test_what_stays_is_read_again_only_after_a_while(
    job_store, redis_client, lives, orphans, clock, backlog
):
    job_store.models.make_current(NAME, NEW)
    lives(NEW)

    def num_read() -> int:
        """Records that one step reads, about."""
        redis_client.config_resetstat()
        orphans.take_over(NAME, NEW)
        return redis_client.info("commandstats").get("cmdstat_hgetall", {"calls": 0})["calls"]

    assert num_read() >= 700
    assert num_read() < 100
    late = job_store.submit(a_job(fingerprint=keys.UNBOUND)).task_id
    orphans.take_over(NAME, NEW)
    assert queue(redis_client, NEW) == [late]
    clock.now += READ_AGAIN_S
    assert num_read() >= 700
