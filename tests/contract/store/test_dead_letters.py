"""Dead letters and parked jobs in Redis: bounded, dropped in time, and requeued once."""

import time

import pytest
import redis

from contract import keys
from contract.errors import JobUnreadable
from contract.messages import Job, failure_record
from contract.queue_messages import task_message
from contract.store.jobs.endings import Ending
from contract.store.jobs.job_store import JobStore
from contract.store.queue.dead_letters import MAX_RAW_BYTES, DeadLetters
from contract.store.queue.parked_jobs import ParkedJobs
from contract.worker_status import WorkerStatus
from tests.waiting_messages import clear, dead_letters, num_parked, take, waiting
from worker.dead_letters import main
from worker.process.registration import Registration
from worker.process.request_ids import RequestIds
from worker.queue.intake import Intake
from worker.recovery.overdue import GRACE_S, Overdue
from worker.recovery.upkeep import Upkeep, set_aside_broken_leases

STATUS = WorkerStatus(name="w", state="ready", model={"name": "mine", "fingerprint": "0" * 12})
SECRET = b"Xylographenkraehe"


@pytest.fixture
def letters(redis_client, settings) -> DeadLetters:
    """The dead letters of the test's Redis."""
    return DeadLetters(redis_client, settings)


@pytest.fixture
def command(settings, monkeypatch, capsys):
    """Run the operator's command; return its exit code and what it printed."""
    monkeypatch.setenv("EVASCORE_REDIS_URL", settings.redis_url.get_secret_value())

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        exit_code = main(arguments)
        out, err = capsys.readouterr()
        assert SECRET.decode() not in out + err
        return exit_code, out, err

    return run


def a_job(text: str = "ab", age_s: float = 0) -> Job:
    at = time.time() - age_s
    return Job([{"text": text}], len(text), at, at + 60, client="192.0.2.7")


def set_aside_payload(store: JobStore, raw: bytes | None = None, age_s: float = 0) -> str:
    """End a job as unreadable, as a worker does; return its ID."""
    task_id = store.submit(a_job(age_s=age_s)).task_id
    payload = store._client.get(keys.payload(task_id))
    clear(store._client)
    kept = payload if raw is None else raw
    store.set_aside("payload", "not_json", task_id=task_id, num_bytes=9, raw=kept)
    record = failure_record(task_id, JobUnreadable("broken"), a_job().facts(), time.time())
    store.conclude([Ending(task_id, record, "jobs_failed")])
    return task_id


def test_newest_letters_are_kept_up_to_their_number(letters, redis_client, monkeypatch):
    monkeypatch.setattr("contract.store.queue.dead_letters.MAX_LETTERS", 3)
    for size in range(1, 6):
        letters.add("message", "not_json", num_bytes=size, raw=b"x" * size)
    kept = letters.letters()
    assert [letter.num_bytes for letter in kept] == [3, 4, 5]
    assert redis_client.hkeys(keys.DEAD_LETTER_RAWS) == [each.id.encode() for each in kept]


@pytest.mark.parametrize(("over", "num_kept"), [(0, 1), (1, 0)])
def test_bytes_beyond_the_limit_are_not_kept(letters, redis_client, over, num_kept):
    raw = b"x" * (MAX_RAW_BYTES + over)
    letters.add("message", "not_json", num_bytes=len(raw), raw=raw)
    assert redis_client.hlen(keys.DEAD_LETTER_RAWS) == num_kept
    assert letters.letters()[0].num_bytes == len(raw)


def test_letters_expire_with_results(redis_client, settings, letters, job_store):
    letters.add("message", "not_json", num_bytes=1, raw=b"x")
    Upkeep(redis_client, job_store, settings, Registration(job_store.models, STATUS)).run()
    assert len(letters.letters()) == 1
    letters._ttl_s = -1
    letters.drop_expired()
    assert letters.letters() == []
    assert redis_client.hlen(keys.DEAD_LETTER_RAWS) == 0


def test_erased_job_takes_its_letters_along(job_store, redis_client):
    task_id, other = set_aside_payload(job_store), set_aside_payload(job_store)
    job_store.erase(task_id)
    assert [letter.task_id for letter in dead_letters(redis_client)] == [other]
    assert redis_client.hlen(keys.DEAD_LETTER_RAWS) == 1


def test_full_redis_keeps_no_letter_and_stops_no_worker(job_store, redis_client):
    redis_client.config_set("maxmemory", 1)
    try:
        redis_client.config_set("maxmemory-policy", "noeviction")
        job_store.set_aside("message", "not_json", num_bytes=1, raw=b"x")
    finally:
        redis_client.config_set("maxmemory", 0)
    assert dead_letters(redis_client) == []


def test_record_that_cannot_be_read_has_an_error_of_its_own(job_store, redis_client):
    task_id = job_store.submit(a_job()).task_id
    for raw in (SECRET, b'{"version": "2.0"}'):
        redis_client.set(keys.record(task_id), raw)
        for call in (job_store.read, job_store.cancel):
            with pytest.raises(JobUnreadable) as error:
                call(task_id)
            assert SECRET.decode() not in error.value.message


def test_list_prints_one_line_per_letter_without_content(command, letters):
    assert command("list") == (0, "", "")
    letters.add("message", "not_json", num_bytes=17, raw=SECRET)
    letters.add("payload", "wrong_fields", task_id="abc", num_bytes=2, raw=SECRET)
    exit_code, out, err = command("list")
    assert (exit_code, err) == (0, "")
    first, second = (line.split(" ") for line in out.splitlines())
    ids = [letter.id for letter in letters.letters()]
    assert first[0::2] == [ids[0], "message", "17", "-"]
    assert second[0::2] == [ids[1], "payload", "2", "abc"]


def test_drop_deletes_letters_and_says_which_are_unknown(command, letters, redis_client):
    for _ in range(3):
        letters.add("message", "not_json", num_bytes=1, raw=b"x")
    first, second, third = (letter.id for letter in letters.letters())
    assert command("drop", first, second) == (0, f"{first} dropped\n{second} dropped\n", "")
    exit_code, out, err = command("drop", first, third)
    assert (exit_code, out) == (1, f"{third} dropped\n")
    assert "there is no such dead letter" in err
    assert redis_client.exists(keys.DEAD_LETTER_RAWS) == 0
    assert command("drop", "--all") == (0, "", "")


@pytest.mark.parametrize("arguments", [(), ("drop",), ("requeue", "1-0", "--all"), ("show",)])
def test_wrong_use_exits_with_2(command, arguments):
    with pytest.raises(SystemExit) as stopped:
        command(*arguments)
    assert stopped.value.code == 2


def test_command_says_that_redis_is_away(command, monkeypatch):
    monkeypatch.setenv("EVASCORE_REDIS_URL", "redis://127.0.0.1:1/0")
    exit_code, _, err = command("list")
    assert (exit_code, err.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("option", "said"),
    [("maxmemory", "its memory is full"), ("min-replicas-to-write", "read-only")],
)
def test_command_says_why_redis_refuses_to_requeue(command, letters, redis_client, option, said):
    letters.add("message", "not_json", num_bytes=1, raw=SECRET)
    redis_client.config_set(option, 1)
    exit_code, _, err = command("requeue", "--all")
    assert (exit_code, err.count("\n")) == (1, 1)
    assert said in err
    assert "does not answer" not in err
    redis_client.config_set(option, 0)
    assert command("requeue", "--all")[0] == 0


def test_requeued_message_is_at_the_consuming_end(command, letters, redis_client):
    redis_client.lpush(keys.QUEUE, b"waiting")
    letters.add("message", "not_json", num_bytes=1, raw=SECRET)
    assert command("requeue", "--all")[0] == 0
    assert redis_client.lrange(keys.QUEUE, 0, -1) == [b"waiting", SECRET]
    assert letters.letters() == []


def test_requeued_job_waits_again(command, job_store, redis_client):
    task_id = set_aside_payload(job_store)
    (letter,) = dead_letters(redis_client)
    assert command("requeue", letter.id) == (0, f"{letter.id} requeued\n", "")
    assert job_store.read(task_id).state == "QUEUED"
    assert (job_store.depth().jobs, job_store.depth().bytes) == (1, 2)
    assert redis_client.hget(keys.LIVE_CLIENTS, "jobs:192.0.2.7") == b"1"
    (opened,) = job_store.open_jobs([task_id])
    assert opened.job.requests == [{"text": "ab"}]
    assert task_id.encode() in take(redis_client)
    assert dead_letters(redis_client) == []


def test_job_that_is_requeued_after_its_deadline_has_all_its_time_again(
    command, job_store, redis_client
):
    task_id = set_aside_payload(job_store, age_s=3600)
    assert command("requeue", "--all")[0] == 0
    (opened,) = job_store.open_jobs([task_id])
    for deadline_at in (opened.job.deadline_at, job_store.read(task_id).job["deadline_at"]):
        assert 50 < deadline_at - time.time() <= 60
    Overdue(redis_client, job_store, clock=lambda: time.time() + GRACE_S + 1).end_some()
    assert not job_store.read(task_id).is_final


def test_job_that_still_cannot_be_read_is_not_requeued(command, job_store, redis_client):
    task_id = set_aside_payload(job_store, raw=SECRET)
    exit_code, out, err = command("requeue", "--all")
    assert (exit_code, out) == (1, "")
    assert "cannot read its payload" in err
    assert job_store.read(task_id).state == "FAILURE"
    assert len(dead_letters(redis_client)) == 1


def test_job_that_is_gone_is_not_requeued(command, job_store, redis_client):
    task_id = set_aside_payload(job_store)
    redis_client.delete(keys.record(task_id))
    assert command("requeue", "--all")[0] == 1
    assert waiting(redis_client) == []


@pytest.mark.parametrize(
    ("kind", "task_id", "said"),
    [("lease", "", "lease"), ("message", "", "not kept"), ("payload", "abc.0", "batch")],
)
def test_letters_that_have_no_way_back_say_so(command, letters, kind, task_id, said):
    raw = b"" if kind == "message" else b"x"
    letters.add(kind, "not_json", task_id=task_id, num_bytes=1, raw=raw)
    exit_code, _, err = command("requeue", "--all")
    assert exit_code == 1
    assert said in err


def fetched(client: redis.Redis, tag: str, raw: bytes) -> None:
    """Put a message where the fetch script puts it."""
    client.hset(keys.unacked("w"), tag, b"[" + raw + b', "", "evascore"]')
    client.zadd(keys.unacked_index("w"), {tag: time.time()})


def test_parked_jobs_come_back_in_their_order_and_priority(redis_client):
    parked = ParkedJobs(redis_client)
    messages = [task_message(tag, 1, keys.BULK if tag == "c" else 0) for tag in "abc"]
    for tag, message in zip("abc", messages, strict=True):
        fetched(redis_client, tag, message)
        parked.park(tag, 2, "w")
        parked.park(tag, 2, "w")
    assert num_parked(redis_client) == 3
    assert redis_client.hlen(keys.unacked("w")) == redis_client.zcard(keys.unacked_index("w")) == 0
    parked.take_back()
    assert num_parked(redis_client) == 3
    ParkedJobs(redis_client, major=2).take_back()
    assert num_parked(redis_client) == 0
    assert redis_client.smembers(keys.PARKED) == set()
    assert waiting(redis_client) == messages[:2]
    assert waiting(redis_client, keys.BULK) == messages[2:]


def test_job_that_stays_parked_ends_when_no_deadline_can_be_met(job_store, redis_client, settings):
    task_id = job_store.submit(a_job()).task_id
    fetched(redis_client, task_id, take(redis_client))
    job_store.park(task_id, 2, "w")
    upkeep = Upkeep(redis_client, job_store, settings, Registration(job_store.models, STATUS))
    upkeep.run()
    assert (num_parked(redis_client), job_store.read(task_id).state) == (1, "QUEUED")
    upkeep._max_wait_s = -1
    upkeep.run()
    assert job_store.read(task_id).error["code"] == "job_expired"
    assert (num_parked(redis_client), job_store.depth().jobs) == (0, 0)


def test_lease_that_is_no_status_is_set_aside_if_it_never_expires(job_store, redis_client):
    status = WorkerStatus(name="good", state="ready").encode()
    for name, value in (("good", status), ("forever", SECRET), ("soon", SECRET)):
        redis_client.sadd(keys.WORKERS, name)
        redis_client.set(keys.lease(name), value, px=60_000 if name == "soon" else None)
    redis_client.set(keys.lease("own"), SECRET)
    for _ in range(2):
        set_aside_broken_leases(redis_client, job_store, "own")
    left = [redis_client.exists(keys.lease(name)) for name in ("good", "soon", "forever", "own")]
    assert left == [1, 1, 0, 0]
    letters = [(letter.kind, letter.num_bytes) for letter in dead_letters(redis_client)]
    assert letters == [("lease", len(SECRET))] * 2


def test_intake_takes_a_message_and_leaves_it_unacknowledged(job_store, redis_client):
    message = task_message("a", 7, keys.BULK)
    fetched(redis_client, "a", message)
    read = Intake(redis_client, job_store, "w", RequestIds()).read_message("a", message, True)
    assert read["properties"]["delivery_info"]["express"] is True
    assert read["properties"]["delivery_info"]["redelivered"] is False
    assert read["properties"]["priority"] == keys.BULK
    assert (read["headers"]["id"], read["headers"]["cost"]) == ("a", 7)
    assert redis_client.hlen(keys.unacked("w")) == 1
