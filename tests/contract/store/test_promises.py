"""Room in Redis that is promised to results: what fits, what is given back, and what is stored."""

import time
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from app.requests.batch_lines import PartCutter
from app.requests.models import BatchOptions
from app.service.recent_workers import RecentWorkers
from app.service.retry_after import MAX_RETRY_S, RetryEstimate
from app.service.turns import LargeWork
from contract import keys
from contract.batches import Batch, Part, PartId, part_results
from contract.errors import BodyTooLarge, Overloaded, ScoringFailed
from contract.grammar.lines import Line
from contract.messages import failure_record, success_record
from contract.settings import load_settings
from contract.store.admission import outcomes
from contract.store.admission.memory import LOOK_AGAIN_S, SAMPLE_S, Memory, MemorySampler, memory_of
from contract.store.admission.outcomes import NoRoom
from contract.store.batches.batch_store import BatchStore
from contract.store.jobs.endings import Ending
from contract.store.jobs.job_store import JobStore
from contract.stored_results import promised_bytes
from tests.contract.store.test_job_store import a_job, scored

RESULT_BYTES = 2_000_000


def promised(client) -> int:
    return int(client.get(keys.LIVE_PROMISED) or 0)


def a_large_job(**fields):
    return a_job(result_bytes=RESULT_BYTES, **fields)


def store_with_room(client, num_results: float) -> JobStore:
    """A store whose Redis has room for so many results of `RESULT_BYTES`."""
    room = int(num_results * promised_bytes(RESULT_BYTES))
    used = client.info("memory")["used_memory"]
    return JobStore(client, load_settings({"EVASCORE_MAX_REDIS_BYTES": str(used + room)}))


def test_accepted_job_is_promised_room_until_it_ends(job_store, redis_client):
    job = a_large_job()
    task_id = job_store.submit(job).task_id
    assert promised(redis_client) == promised_bytes(RESULT_BYTES)
    for _ in range(2):
        job_store.conclude([scored(task_id, job)])
        assert promised(redis_client) == 0
        assert not redis_client.exists(keys.LIVE_CLIENTS)


@pytest.mark.parametrize("end", ["cancel", "erase", "fail"])
def test_promise_is_given_back_however_a_job_ends(job_store, redis_client, end):
    job = a_large_job()
    task_id = job_store.submit(job).task_id
    if end == "fail":
        record = failure_record(task_id, ScoringFailed("no"), job.facts(), time.time())
        job_store.conclude([Ending(task_id, record)])
    else:
        getattr(job_store, end)(task_id)
    assert promised(redis_client) == 0


def test_job_whose_result_has_no_room_is_refused_and_nothing_of_it_stored(redis_client):
    store = store_with_room(redis_client, 2.5)
    first, second = (a_large_job(client=name) for name in "ab")
    first_id = store.submit(first).task_id
    store.submit(second)
    before = set(redis_client.keys())
    with pytest.raises(NoRoom) as refusal:
        store.submit(a_large_job())
    assert refusal.value.promised_bytes == 2 * promised_bytes(RESULT_BYTES)
    assert not refusal.value.is_share
    assert set(redis_client.keys()) == before
    # A small result still fits.
    store.submit(a_job(result_bytes=1000))
    store.conclude([scored(first_id, first)])
    store.submit(a_large_job())


def test_one_client_is_promised_no_more_than_is_left_for_others(redis_client, settings):
    store = store_with_room(redis_client, 4.5)
    for _ in range(2):
        store.submit(a_large_job(client="a"))
    with pytest.raises(NoRoom) as refusal:
        store.submit(a_large_job(client="a"))
    assert refusal.value.is_share
    assert refusal.value.promised_bytes == 2 * promised_bytes(RESULT_BYTES)
    shown = RetryEstimate(RecentWorkers(store, settings)).no_room(refusal.value)
    assert isinstance(shown, Overloaded)
    assert "you would hold more of Redis than is free" in shown.message
    store.submit(a_large_job(client="b"))


def test_sixteen_who_ask_at_once_are_promised_no_more_than_there_is(redis_client):
    store = store_with_room(redis_client, 3.5)

    def submit(_):
        try:
            store.submit(a_large_job(client=str(_)))
        except NoRoom:
            return 0
        return 1

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(submit, range(16))) == 3
    assert promised(redis_client) == 3 * promised_bytes(RESULT_BYTES)


@pytest.mark.parametrize("is_freed", [True, False])
def test_refusal_for_lack_of_room_is_looked_at_twice(redis_client, monkeypatch, is_freed):
    """As while a worker sends a result, which counts twice until it is stored."""
    store = store_with_room(redis_client, 2.5)
    # Made in Redis: a connection that sends so much keeps its buffer there for a second.
    redis_client.setrange("sent", 2 * promised_bytes(RESULT_BYTES), b"x")
    waits = []

    really_sleep = time.sleep

    def sleep(seconds):
        waits.append(seconds)
        really_sleep(seconds)
        if is_freed:
            redis_client.delete("sent")

    monkeypatch.setattr(outcomes.time, "sleep", sleep)
    if is_freed:
        store.submit(a_large_job())
    else:
        with pytest.raises(NoRoom):
            store.submit(a_large_job())
    assert waits == [LOOK_AGAIN_S]


def test_job_that_never_fits_is_refused_at_once(redis_client, monkeypatch):
    store = store_with_room(redis_client, 0.5)
    waits = []
    monkeypatch.setattr(outcomes.time, "sleep", waits.append)
    with pytest.raises(NoRoom) as refusal:
        store.submit(a_large_job())
    assert refusal.value.is_for_good
    assert waits == []


def test_room_follows_what_redis_uses(redis_client):
    now = [0.0]
    sampler = MemorySampler(redis_client, load_settings({}), clock=lambda: now[0])
    before = sampler.read()
    redis_client.set("a", b"x" * RESULT_BYTES)
    assert sampler.read() is before
    now[0] += SAMPLE_S + 0.1
    assert sampler.read().room_bytes <= before.room_bytes - RESULT_BYTES


def test_refusals_share_the_samples_that_they_ask_for(redis_client):
    now = [10.0]
    sampler = MemorySampler(redis_client, load_settings({}), clock=lambda: now[0])
    first = sampler.read()
    for _ in range(3):
        sampler.expire()
        now[0] += LOOK_AGAIN_S / 4
        assert sampler.read() is first
    now[0] += LOOK_AGAIN_S / 2
    assert sampler.read() is not first


@pytest.mark.parametrize(
    ("maxmemory", "limit_bytes"), [(0, 1000), (500, 450), (1000, 900), (5000, 1000)]
)
def test_limit_is_the_setting_or_nine_tenths_of_the_memory_of_redis(maxmemory, limit_bytes):
    settings = load_settings({"EVASCORE_MAX_REDIS_BYTES": "1000"})
    info = {"used_memory": 300, "used_memory_startup": 100, "maxmemory": maxmemory}
    assert memory_of(info, settings) == Memory(300, 100, limit_bytes, maxmemory_bytes=maxmemory)
    assert memory_of(info, settings).room_bytes == limit_bytes - 300


@pytest.mark.parametrize(
    ("needed", "promised_before", "error", "retry_after_s"),
    [(901, 0, BodyTooLarge, None), (900, 0, Overloaded, MAX_RETRY_S), (900, 50, Overloaded, 5)],
)
def test_refusal_tells_whether_waiting_helps(
    job_store, settings, needed, promised_before, error, retry_after_s
):
    memory = Memory(used_bytes=400, startup_bytes=100, limit_bytes=1000)
    retry = RetryEstimate(RecentWorkers(job_store, settings))
    refusal = retry.no_room(NoRoom(needed, promised_before, memory))
    assert isinstance(refusal, error)
    assert f"{needed} bytes" in refusal.message
    assert "fewer outputs" in refusal.message
    assert refusal.details.get("retry_after_s") == retry_after_s


def test_redis_that_could_hold_nothing_at_all_is_full_and_the_request_not_too_large(
    job_store, settings
):
    retry = RetryEstimate(RecentWorkers(job_store, settings))
    refusal = retry.no_room(NoRoom(10, 0, Memory(400, 100, limit_bytes=1)))
    assert isinstance(refusal, Overloaded)


class Batches:
    """Batches of parts of five lines, on a real Redis."""

    def __init__(self, client, settings) -> None:
        self.jobs = JobStore(client, settings)
        self.store = BatchStore(client, settings, self.jobs)
        self.lines = [{"text": "x" * 50, "outputs": ["bytes"]}] * 5

    def accept(self, num_parts: int = 2) -> tuple[str, int]:
        """Accept a batch; its ID, and what it was promised."""
        cutter = PartCutter(
            BatchOptions(),
            load_settings({"EVASCORE_MICRO_BATCH_TEXTS": "5"}),
            deadline_at=time.time() + 60,
            request_id="r",
            large_work=LargeWork(),
        )
        lines = [orjson.dumps(line) for line in self.lines * num_parts]
        parts = list(cutter.parts(Line(number, line) for number, line in enumerate(lines, 1)))
        batch_id = self.store.new_id()
        self.store.store_parts(batch_id, parts)
        batch = Batch(
            id=batch_id,
            total=cutter.num_lines,
            num_bytes=cutter.num_bytes,
            num_parts=len(parts),
            created_at=time.time(),
            deadline_at=time.time() + 60,
        )
        self.store.accept(batch, work_bytes=cutter.work_bytes, promised_bytes=cutter.promised_bytes)
        return batch_id, cutter.promised_bytes

    def end_part(self, batch_id: str, first: int) -> None:
        """Score one part, twice as after a lost reply."""
        part = PartId(batch_id, first)
        results = part_results(part, self.lines, [{"v": 1}] * 5, 5 * 64)
        record = success_record(str(part), None, {}, time.time())
        for _ in range(2):
            self.jobs.conclude([Ending(str(part), record, results=results)])


@pytest.fixture
def batches(redis_client, settings) -> Batches:
    return Batches(redis_client, settings)


def test_batch_gives_its_promise_back_as_its_parts_end(batches, redis_client):
    job = a_large_job()
    task_id = batches.jobs.submit(job).task_id
    of_job = promised(redis_client)
    batch_id, of_batch = batches.accept(num_parts=2)
    assert promised(redis_client) == of_job + of_batch
    batches.end_part(batch_id, 0)
    assert promised(redis_client) == of_job + of_batch // 2
    batches.end_part(batch_id, 5)
    assert promised(redis_client) == of_job
    assert not redis_client.exists(keys.BATCH_PROMISED, keys.BULK_CLIENTS)
    batches.jobs.conclude([scored(task_id, job)])
    assert promised(redis_client) == 0


@pytest.mark.parametrize("end", ["cancel", "erase"])
def test_batch_that_does_not_get_to_its_end_gives_everything_back(batches, redis_client, end):
    batch_id, _ = batches.accept()
    _, of_other = batches.accept()
    batches.end_part(batch_id, 0)
    getattr(batches.store, end)(batch_id)
    assert promised(redis_client) == of_other
    assert redis_client.hlen(keys.BATCH_PROMISED) == 1


def test_expired_batch_gives_its_promise_back(batches, redis_client):
    batch_id, of_batch = batches.accept()
    redis_client.delete(keys.batch(batch_id))
    assert promised(redis_client) == of_batch
    assert batches.store.load().promised_bytes in (0, of_batch)
    assert batches.store.load().promised_bytes == 0


def test_full_redis_queues_ends_and_cancels_accepted_batches(batches, redis_client):
    batch_id, _ = batches.accept()
    other_id, _ = batches.accept()
    redis_client.hset(keys.batch(other_id), "num_published", 0)
    redis_client.sadd(keys.UNPUBLISHED, other_id)
    redis_client.config_set("maxmemory", 1)
    for first in (0, 5):
        batches.end_part(batch_id, first)
    assert batches.store.read(batch_id).status == "completed"
    assert batches.store.cancel(other_id).status == "cancelled"
    assert promised(redis_client) == 0


def test_batch_without_promise_and_part_of_an_earlier_release_end(batches, redis_client):
    batch_id, _ = batches.accept()
    redis_client.delete(keys.BATCH_PROMISED, keys.LIVE_PROMISED, keys.batch_parts(batch_id))
    redis_client.zadd(
        keys.batch_parts(batch_id),
        {b"%d:%d:%d" % part[:3]: part.first for part in (Part(0, 5, 320), Part(5, 5, 320))},
    )
    for first in (0, 5):
        batches.end_part(batch_id, first)
    assert batches.store.read(batch_id).status == "completed"
    assert promised(redis_client) == 0


def test_batch_whose_results_have_no_room_is_refused(redis_client):
    used = redis_client.info("memory")["used_memory"]
    settings = load_settings({"EVASCORE_MAX_REDIS_BYTES": str(used + 20_000)})
    batches = Batches(redis_client, settings)
    with pytest.raises(NoRoom):
        batches.accept(num_parts=4)
    assert not redis_client.hlen(keys.LIVE_BATCHES)
    assert promised(redis_client) == 0
