"""The fetch script on a real Redis: express messages first, then clients in turns, none lost."""

import re
import time
from collections import Counter

import pytest

from contract import keys
from contract.messages import Job, decode_payload
from contract.queue_messages import decode_message, queue_of, task_message
from contract.store.connection.scripts import register
from contract.store.queue.parked_jobs import ParkedJobs
from model import ScoreRequest, Slice
from tests.waiting_messages import EXPRESS, num_parked
from worker.queue.transport import SCRIPTS
from worker.recovery import dead_workers
from worker.recovery.lost_turns import LOOK_EVERY_S, LostTurns
from worker.scheduling.batching_delay import ANY_TIME
from worker.scheduling.filling import Budget, OpenJob
from worker.scheduling.room import Room, fetch_arguments, room_for_fetch

BUDGET_BYTES = 800
NO_ROOM = Room(long_bytes=BUDGET_BYTES)
FREE = Room(100, BUDGET_BYTES, 4, 100, BUDGET_BYTES, 2, (), BUDGET_BYTES)
MODEL = "0123456789ab"


class Queue:
    """The queue of one model, as a worker fetches from it and a web server adds to it."""

    def __init__(self, client, store) -> None:
        self.client, self.store = client, store
        self._fetch = register(client, "fetch", SCRIPTS)
        self.client_of: dict[str, str] = {}
        self.opened: list[bytes] | None = None
        """What the last fetch opened."""

    def add(self, client: str, *sizes: int, priority: int = keys.INTERACTIVE) -> list[str]:
        """Submit a job of each size."""
        now, ids = time.time(), []
        for size in sizes:
            job = Job(
                *([{"text": "x"}], size, now, now + 60),
                priority=priority,
                client=client,
                fingerprint=MODEL,
            )
            ids.append(self.store.submit(job).task_id)
            self.client_of[ids[-1]] = client
        return ids

    def fetch(
        self,
        room: Room = FREE,
        bulk: Room = NO_ROOM,
        *,
        is_idle: bool = False,
        opens_after: float = ANY_TIME,
    ) -> list[tuple[bool, str]]:
        """Fetch as a worker with this room; whether express, and the task ID of each message."""
        rooms = dict(zip(keys.PRIORITY_STEPS, (room, bulk), strict=True))
        worker = keys.unacked("w"), keys.unacked_index("w")
        aboard = keys.aboard("w") if is_idle else ""
        names, args = fetch_arguments(MODEL, rooms, worker, time.time(), aboard, opens_after)
        found = self._fetch(keys=names, args=args)
        self.opened = found.pop() if len(found) % 3 else None
        express, tags, messages = found[::3], found[1::3], found[2::3]
        assert [decode_message(raw).task_id.encode() for raw in messages] == tags
        assert all(self.client.hexists(keys.unacked("w"), tag) for tag in tags)
        return [(flag == b"1", tag.decode()) for flag, tag in zip(express, tags, strict=True)]

    def clients(self, *args, **kwargs) -> Counter[str]:
        """How many messages of each client a fetch brings."""
        return Counter(self.client_of[tag] for _, tag in self.fetch(*args, **kwargs))


@pytest.fixture
def queue(redis_client, job_store) -> Queue:
    return Queue(redis_client, job_store)


def test_only_the_first_job_of_a_client_is_express(queue):
    first, second, third = queue.add("a", 1, 1, 1)
    (other,) = queue.add("b", 1)
    assert queue.fetch() == [(True, first), (True, other), (False, second), (False, third)]


def test_express_comes_though_a_flood_leaves_no_room(queue):
    queue.add("flood", *[100] * 30)
    queue.clients()
    (newcomer,) = queue.add("new", 50)
    full = FREE._replace(jobs=0, bytes=0, long_jobs=0, busy_clients=("flood",))
    assert queue.fetch(full) == [(True, newcomer)]


def test_clients_take_turns_in_bytes(queue):
    queue.add("large", *[400] * 20)
    queue.add("small", *[10] * 400)
    queue.add("medium", *[90] * 60)
    num_bytes: Counter[str] = Counter()
    sizes = {"large": 400, "small": 10, "medium": 90}
    for _ in range(9):
        num_bytes += {name: sizes[name] * n for name, n in queue.clients().items()}
    assert max(num_bytes.values()) - min(num_bytes.values()) <= 2 * 400 + 100


def test_every_message_is_fetched_once_and_nothing_is_left(queue, redis_client):
    ids = [task for i in range(60) for task in queue.add(f"c{i % 7}", 1 + i * 37 % 900)]
    ids += queue.add("bulk", *[30] * 10, priority=keys.BULK)
    fetched: list[str] = []
    for _ in range(200):
        fetched += [tag for _, tag in queue.fetch(FREE, FREE)]
    assert sorted(fetched) == sorted(ids)
    assert not redis_client.keys("evascore:turns:*")
    assert not redis_client.keys("evascore:waiting:*")
    assert not redis_client.keys("evascore:deficits:*")


def test_order_of_one_client_is_kept(queue):
    ids = queue.add("a", *[130] * 20)
    fetched: list[str] = []
    while len(fetched) < 20:
        fetched += [tag for _, tag in queue.fetch()]
    assert fetched == ids


def test_client_has_one_long_job_in_hand_at_most(queue):
    express, second, *_ = queue.add("a", 5000, 6000, 10)
    assert queue.fetch(FREE._replace(jobs=0)) == [(True, express)]
    busy = FREE._replace(long_jobs=5, busy_clients=("a", "b"))
    assert queue.fetch(busy) == []
    assert [tag for _, tag in queue.fetch(busy._replace(busy_clients=("b",)))] == [second]


def test_long_jobs_of_many_clients_keep_no_other_from_starting(queue):
    budget = Budget(BUDGET_BYTES, slices=100, result_bytes=10**6)
    piece = Slice(ScoreRequest(text=b"x" * BUDGET_BYTES))
    in_hand = [OpenJob(f"{i}", [piece] * 9, 0.0, client=f"{i}", is_express=True) for i in range(50)]
    for job in in_hand:
        job.outcomes.append({})
    (newcomer,) = queue.add("new", BUDGET_BYTES + 1)
    rooms = room_for_fetch(in_hand, budget)
    assert queue.fetch(*rooms.values()) == [(True, newcomer)]


def test_long_express_jobs_that_wait_keep_no_short_one_waiting(queue):
    long, short = [], []
    for i in range(20):
        long += queue.add(f"long{i}", BUDGET_BYTES + 1)
        short += queue.add(f"short{i}", 10)
    assert queue.fetch() == [(True, long[0])]
    assert queue.fetch(FREE._replace(express_long_jobs=0)) == [(True, tag) for tag in short]
    assert [tag for _ in long[1:] for _, tag in queue.fetch()] == long[1:]


def test_worker_without_room_for_long_jobs_takes_short_ones(queue):
    queue.add("long", 5000, 5000)
    queue.add("short", *[100] * 4)
    full = FREE._replace(express_long_jobs=0, long_jobs=0)
    assert queue.clients(full) == {"short": 4}
    assert queue.clients(FREE._replace(jobs=0)) == {"long": 1}
    assert queue.clients() == {"long": 1}


def test_message_larger_than_the_room_comes_alone(queue):
    queue.add("a", 10, 700, 700)
    queue.clients(FREE._replace(jobs=0))
    assert queue.clients(FREE._replace(bytes=1)) == {"a": 1}
    assert queue.clients(FREE._replace(bytes=0)) == {}


def test_messages_of_release_0_1_come_first_and_garbage_with_them(queue, redis_client):
    queue.add("a", 1, 1)
    redis_client.lpush(keys.QUEUE, task_message("old", 1, keys.INTERACTIVE))
    redis_client.lpush(keys.QUEUE, b"garbage")
    room = FREE._replace(express_jobs=3, jobs=0)
    rooms = {keys.INTERACTIVE: room}
    worker = keys.unacked("w"), keys.unacked_index("w")
    names, args = fetch_arguments(MODEL, rooms, worker, time.time())
    fetched = queue._fetch(keys=names, args=args)
    assert len(fetched) == 9
    assert b"old" in fetched
    assert b"garbage" in fetched


def test_requeued_message_goes_before_all_others_of_its_queue(queue, redis_client):
    ids = queue.add("a", 10, 10)
    assert [tag for _, tag in queue.fetch(FREE._replace(jobs=0))] == ids[:1]
    queue.add("b", 10)
    assert dead_workers.requeue_left_behind(redis_client, "w", "lost") == 1
    assert queue.fetch()[0] == (True, ids[0])
    stored = redis_client.hget(keys.unacked("w"), ids[0])
    assert b'"redelivered":true' in stored
    assert queue_of(stored[1 : stored.rindex(b', "", "')]) == (MODEL, keys.INTERACTIVE)


@pytest.mark.parametrize("priority", keys.PRIORITY_STEPS)
def test_jobs_that_were_parked_take_the_turns_of_their_client(queue, redis_client, priority):
    parked, everything = ParkedJobs(redis_client, major=2), (FREE, FREE)
    flood = queue.add("flood", *[BUDGET_BYTES] * 8, priority=priority)
    for tag in [tag for _ in flood for _, tag in queue.fetch(*everything)]:
        parked.park(tag, 2, "w")
    assert num_parked(redis_client) == len(flood)
    parked.take_back()
    (newcomer,) = queue.add("new", BUDGET_BYTES, priority=priority)
    first, *rest = [tag for _ in range(9) for _, tag in queue.fetch(*everything)]
    assert (first, rest) == (newcomer, flood)


def test_parked_parts_of_a_batch_take_the_turns_of_its_client(queue, redis_client):
    parked, part = ParkedJobs(redis_client, major=2), "batch.0"
    redis_client.hset(keys.BATCH_CLIENTS, "batch", "a")
    message = task_message(part, 10, keys.BULK, MODEL)
    redis_client.hset(keys.unacked("w"), part, b"[" + message + b', "", "evascore"]')
    parked.park(part, 2, "w")
    parked.take_back()
    assert redis_client.lrange(keys.turns(MODEL, keys.BULK), 0, -1) == [b"a"]
    assert queue.fetch(bulk=FREE) == [(False, part)]


def test_queue_of_another_model_is_not_touched(queue, redis_client):
    queue.add("a", 10)
    other = keys.turns("ffffffffffff", keys.INTERACTIVE)
    redis_client.lpush(other, "a")
    queue.fetch()
    assert redis_client.lrange(other, 0, -1) == [b"a"]


@pytest.mark.parametrize("way", ["cancel", "erase"])
def test_ended_jobs_in_the_express_line_take_no_room(queue, job_store, way):
    queue.add("busy", 1)
    queue.clients()
    ended = []
    for _ in range(30):
        ended += queue.add("ends", BUDGET_BYTES)
        getattr(job_store, way)(ended[-1])
    (newcomer,) = queue.add("new", BUDGET_BYTES)
    fetched = [tag for _, tag in queue.fetch(FREE._replace(express_jobs=1))]
    assert fetched == [*ended, newcomer]


def test_ended_jobs_outside_the_express_line_count_as_their_clients_turn(queue, job_store):
    queue.add("a", 1, 1)
    for task_id in queue.add("a", *[BUDGET_BYTES] * 20):
        job_store.cancel(task_id)
    (other,) = queue.add("b", 1, 1)[1:]
    fetches = [{tag for _, tag in queue.fetch()} for _ in range(2)]
    assert other in set().union(*fetches)


@pytest.mark.parametrize("room", [{"busy_clients": ("a",)}, {"long_jobs": 0}])
def test_cancelled_long_job_does_not_hold_up_the_short_ones_behind_it(queue, job_store, room):
    queue.add("a", 1)
    queue.fetch()
    long, *short = queue.add("a", BUDGET_BYTES * 3, 10, 10)
    assert queue.fetch(FREE._replace(**room)) == []
    job_store.cancel(long)
    fetched = [tag for _ in range(2) for _, tag in queue.fetch(FREE._replace(**room))]
    assert fetched == [long, *short]


def test_record_of_a_wrong_type_does_not_hold_up_other_jobs(queue, redis_client):
    ids = queue.add("a", 10) + queue.add("b", 10)
    redis_client.delete(keys.record(ids[0]))
    redis_client.lpush(keys.record(ids[0]), "not a record")
    assert queue.fetch() == [(True, task_id) for task_id in ids]


@pytest.mark.parametrize("key", [keys.record, keys.payload])
def test_lone_job_that_cannot_be_opened_comes_unopened(queue, redis_client, key):
    (task_id,) = queue.add("a", 10)
    redis_client.delete(key(task_id))
    redis_client.lpush(key(task_id), "not a string")
    assert queue.fetch(is_idle=True) == [(True, task_id)]
    assert queue.opened is None
    assert not redis_client.exists(keys.aboard("w"))


def test_one_fetch_takes_ended_jobs_up_to_a_limit(queue, redis_client):
    limit = limit_of_fetch("MAX_ENDED")
    (first,) = queue.add("a", 1)
    redis_client.delete(keys.record(first))
    line = keys.waiting(MODEL, keys.INTERACTIVE, EXPRESS)
    redis_client.lpush(line, *[redis_client.lindex(line, 0)] * (limit + 5))
    assert len(queue.fetch(FREE._replace(express_jobs=2))) == limit + 2
    assert redis_client.llen(line) == 4


@pytest.mark.parametrize(
    ("size", "room"),
    [
        (BUDGET_BYTES, FREE),
        (BUDGET_BYTES + 1, FREE),
        (BUDGET_BYTES + 1, FREE._replace(long_jobs=0)),
    ],
    ids=["large", "long", "long without room"],
)
def test_one_fetch_runs_a_bounded_number_of_commands(queue, redis_client, size, room):
    max_idle_turns = limit_of_fetch("MAX_IDLE_TURNS")
    large = [queue.add(f"large{i}", 1, size)[1] for i in range(300)]
    (short,) = queue.add("short", 1, 1)[1:]
    while any(is_express for is_express, _ in queue.fetch(room._replace(jobs=0))):
        pass
    fetched: list[str] = []
    for _ in range(len(large) + 20):
        before = num_commands(redis_client)
        found = queue.fetch(room)
        # Six commands of each turn that brings nothing, and some more.
        assert num_commands(redis_client) - before < 7 * max_idle_turns
        fetched += [tag for _, tag in found]
    assert Counter(fetched) == Counter([short, *(large if room.long_jobs else [])])


def limit_of_fetch(name: str) -> int:
    found = re.search(rf"{name} = (\d+)", (SCRIPTS / "fetch.lua").read_text())
    assert found
    return int(found[1])


def num_commands(client) -> int:
    return sum(each["calls"] for each in client.info("commandstats").values())


def test_job_that_comes_alone_to_an_idle_worker_is_opened(queue, job_store, redis_client):
    redis_client.sadd(keys.aboard("w"), "of the last micro-batch")
    (task_id,) = queue.add("a", 10)
    assert queue.fetch(is_idle=True) == [(True, task_id)]
    assert redis_client.smembers(keys.aboard("w")) == {task_id.encode()}
    assert job_store.read(task_id).state == "STARTED"
    verdict, payload = queue.opened
    assert verdict == b"open"
    job_store.keep_opened({task_id: queue.opened})
    redis_client.flushall()
    (opened,) = job_store.open_jobs([task_id], "w", MODEL)
    assert opened.job == decode_payload(payload)
    # What is kept is used once.
    (opened,) = job_store.open_jobs([task_id], "w", MODEL)
    assert opened.job is None


def test_lone_job_that_may_have_to_wait_in_the_worker_comes_unopened(queue, redis_client):
    before = time.time()
    for opens_after, is_opened in ((before, True), (before + 60, False)):
        (task_id,) = queue.add(f"{is_opened}", 10)
        assert queue.fetch(is_idle=True, opens_after=opens_after) == [(True, task_id)]
        assert (queue.opened is not None) == is_opened
        assert redis_client.sismember(keys.aboard("w"), task_id) == is_opened


def test_what_a_fetch_opened_is_not_given_out_for_other_jobs(queue, job_store):
    first, second = queue.add("a", 10), queue.add("b", 10)
    job_store.keep_opened({first[0]: [b"lost", b"{}"]})
    found = job_store.open_jobs([*first, *second], "w", MODEL)
    assert all(opened.job for opened in found)


def test_busy_worker_opens_no_job_by_a_fetch(queue, redis_client):
    queue.add("a", 10)
    queue.fetch()
    assert queue.opened is None
    assert not redis_client.exists(keys.aboard("w"))


@pytest.mark.parametrize("what", ["two", "long", "part", "redelivered", "newer", "garbage"])
def test_idle_worker_opens_no_other_job_by_a_fetch(queue, redis_client, what):
    if what == "two":
        queue.add("a", 10, 10)
    elif what == "long":
        queue.add("a", BUDGET_BYTES + 1)
    elif what == "redelivered":
        queue.add("a", 10)
        queue.fetch()
        dead_workers.requeue_left_behind(redis_client, "w", "lost")
    else:
        tag = "a.0" if what == "part" else "a"
        raw = task_message(tag, 1, keys.INTERACTIVE, MODEL)
        newer = raw.replace(b'"version":"1.', b'"version":"2.')
        message = {"newer": newer, "garbage": b"garbage"}.get(what, raw)
        redis_client.lpush(keys.waiting(MODEL, keys.INTERACTIVE, EXPRESS), message)
        redis_client.rpush(keys.turns(MODEL, keys.INTERACTIVE), EXPRESS)
    rooms = dict(zip(keys.PRIORITY_STEPS, (FREE, NO_ROOM), strict=True))
    worker = keys.unacked("w"), keys.unacked_index("w")
    names, args = fetch_arguments(MODEL, rooms, worker, time.time(), keys.aboard("w"))
    assert len(queue._fetch(keys=names, args=args)) == (6 if what == "two" else 3)
    assert not redis_client.exists(keys.aboard("w"))


def test_job_that_ended_while_it_waited_is_over_when_an_idle_worker_fetches_it(queue, job_store):
    (task_id,) = queue.add("a", 10)
    job_store.cancel(task_id)
    queue.fetch(is_idle=True)
    assert queue.opened == [b"over"]
    assert job_store.read(task_id).state == "REVOKED"


def test_clients_whose_turns_were_lost_get_them_back(queue, redis_client):
    behind = {queue.add(name, 10, 10)[1] for name in ("a", "b")}
    redis_client.delete(keys.turns(MODEL, keys.INTERACTIVE))
    assert [is_express for is_express, _ in queue.fetch()] == [True, True]
    behind |= set(queue.add("a", 10))
    assert queue.fetch() == []
    LostTurns(redis_client).put_back(MODEL)
    assert {task_id for _, task_id in queue.fetch()} == behind
    assert not redis_client.exists(keys.turns(MODEL, keys.INTERACTIVE))


def test_clients_that_have_their_turns_or_no_message_get_no_further_one(queue, redis_client):
    queue.add("a", 10, 10)
    queue.add("b", 10)
    name = keys.turns(MODEL, keys.INTERACTIVE)
    before = redis_client.lrange(name, 0, -1)
    LostTurns(redis_client).put_back(MODEL)
    assert redis_client.lrange(name, 0, -1) == before


def test_lost_turns_are_looked_for_only_now_and_then(queue, redis_client):
    moments = [0.0]
    turns = LostTurns(redis_client, clock=lambda: moments[0])
    turns.put_back(MODEL)
    queue.add("a", 10, 10)
    redis_client.delete(keys.turns(MODEL, keys.INTERACTIVE))
    turns.put_back(MODEL)
    assert len(queue.fetch()) == 1
    moments[0] = LOOK_EVERY_S
    turns.put_back(MODEL)
    assert len(queue.fetch()) == 1
