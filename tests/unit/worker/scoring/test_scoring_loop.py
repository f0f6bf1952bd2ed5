"""The scoring loop without Celery and Redis: which jobs it scores, drops, retries and ends."""

import gc
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from contract import keys
from contract.batches import pieces_of_lines
from contract.messages import Job, decode_record
from contract.store.connection.refusals import NotStored, Reason
from contract.store.jobs.opening import Broken, Opened
from contract.worker_status import STAGES, stage_name
from model import ModelInfo, OutOfMemory, Slice, SliceScores
from tests.conftest import wait_until
from worker.process.lease import Lease
from worker.process.own_status import OwnStatus
from worker.process.startup import Startup
from worker.process.suspects import Crashes
from worker.scheduling.batching_delay import ANY_TIME, BatchingDelay
from worker.scheduling.filling import Budget
from worker.scheduling.pace import MIN_BYTES, Pace
from worker.scheduling.room import no_room
from worker.scoring import fetched_jobs, outcomes
from worker.scoring.micro_batch_scorer import MicroBatchScorer
from worker.scoring.outbox import FIRST_DELAY_S, MAX_TRIES, Outbox
from worker.scoring.outcomes import ScoreJob
from worker.scoring.scoring_loop import ScoringLoop

BUDGET = Budget(bytes=100, slices=10, result_bytes=1_000_000)
INFO = ModelInfo(
    **dict.fromkeys(("name", "fingerprint", "revision", "dtype"), "any"),
    **dict.fromkeys(("device", "quantization", "backend"), "any"),
    num_parameters=1,
    max_text_bytes=1000,
    window_size=16,
    chunk_size=16,
    is_demo=True,
)


class MemoryStore:
    """Jobs in memory, and how they ended."""

    def __init__(self) -> None:
        self.jobs: dict[str, Opened] = {}
        self.unwanted: set[str] = set()
        self.opened: list[list[str]] = []
        self.suspects: list[str] = []
        self.letters: list[tuple[str, str]] = []
        self.parked: dict[str, int] = {}
        self.passed_on: dict[str, str] = {}
        self.endings = {}
        self.refused: set[str] = set()
        self.reason: Reason = "slow"
        self.dropped: list[str] = []
        self.refuses_to_open = False
        self.not_to_be_opened: set[str] = set()

    def open_jobs(self, task_ids, worker, fingerprint):
        if self.refuses_to_open:
            raise NotStored("read_only")
        if self.not_to_be_opened.intersection(task_ids):
            raise NotStored("refused")
        if task_ids:
            self.suspects = list(task_ids)
            self.opened.append(self.suspects)
        return [self.jobs.get(task_id, Opened(task_id)) for task_id in task_ids]

    def are_wanted(self, task_ids):
        return [task_id not in self.unwanted for task_id in task_ids]

    def has_passed(self, moment):
        return moment < time.time()

    def facts(self, task_id):
        return {"num_texts": 1, "num_bytes": 10}

    def set_aside(self, kind, reason, *, task_id, num_bytes, raw):
        self.letters.append((kind, task_id))

    def park(self, task_id, major, worker):
        self.parked[task_id] = major

    def pass_on(self, task_id, fingerprint, worker):
        self.passed_on[task_id] = fingerprint

    def note_aboard(self, task_ids, worker):
        self.suspects = list(task_ids)

    def give_up(self, task_id, worker):
        self.dropped.append(task_id)

    def conclude(self, endings):
        if any(ending.task_id in self.refused for ending in endings):
            raise NotStored(self.reason)
        self.suspects = []
        self.endings |= {ending.task_id: ending for ending in endings}
        return [self._state(ending) for ending in endings]

    def state(self, task_id: str) -> str:
        """The state in the record that a job ended with."""
        return self._state(self.endings[task_id])

    def error(self, task_id: str) -> str:
        """The code of the error that a job ended with."""
        return decode_record(task_id, self.endings[task_id].record).error["code"]

    @staticmethod
    def _state(ending) -> str:
        return ending.record and decode_record(ending.task_id, ending.record).state


class Messages:
    """Messages that remember how they were acknowledged."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.deaths: dict[str, int] = {}
        self.express: set[str] = set()
        self.was_alone: set[str] = set()
        self.acknowledged: dict[str, bool] = {}

    def is_revoked(self, task_id):
        return task_id in self.revoked

    def is_express(self, task_id):
        return task_id in self.express

    def crashes(self, task_id):
        return Crashes(self.deaths.get(task_id, 0), was_alone=task_id in self.was_alone)

    def acknowledge(self, task_id, *, is_success):
        assert task_id not in self.acknowledged
        self.acknowledged[task_id] = is_success


class FakeScorer:
    """Scores a slice by its length, as long as the slices fit `room_bytes` together."""

    info = INFO
    pass_bytes = 64

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.room_bytes = 10**9
        self.num_slices: list[int] = []
        self.suspects: list[list[str]] = []
        """The suspects during each micro-batch."""

    def score_slices(self, slices: Sequence[Slice], on_pass) -> list[SliceScores]:
        if sum(each.num_bytes for each in slices) > self.room_bytes:
            raise OutOfMemory("no room")
        self.num_slices.append(len(slices))
        self.suspects.append(self.store.suspects)
        return [
            SliceScores(
                {
                    "num_bytes": each.num_bytes,
                    "continuations": [len(text) for text in each.request.continuations],
                }
            )
            for each in slices
        ]


class Worker:
    """A scoring loop with everything around it in memory."""

    def __init__(self, budget: Budget = BUDGET, max_s: float = 60) -> None:
        self.store, self.messages = MemoryStore(), Messages()
        self.scorer = FakeScorer(self.store)
        self.status = OwnStatus("w", budget.bytes, Startup("consume", began_at=0.0))
        self.outbox = Outbox(self.store.conclude, on_refusal=self.status.count_refusals)
        lease = Lease(None, self.status, lease_s=5, micro_batch_timeout_s=5)
        self.loop = ScoringLoop(
            self.store,
            self.messages,
            self.outbox,
            MicroBatchScorer(self.scorer, lease, self.status),
            self.status,
            budget=budget,
            pace=Pace(max_s),
            max_crashes=3,
        )

    def add(self, task_id: str) -> None:
        """Have the loop take a fetched job."""
        self.loop.add(task_id, num_bytes=10, submitted_at=time.time())

    def fetch(self, task_id: str, *sizes: int, deadline_s: float = 60, **fields) -> None:
        """Have the loop fetch a job with texts of these sizes."""
        requests = [{"text": "x" * size} for size in sizes]
        now = time.time()
        job = Job(
            requests,
            sum(sizes),
            submitted_at=now,
            deadline_at=now + deadline_s,
            is_single=len(sizes) == 1,
            **fields,
        )
        self.store.jobs[task_id] = Opened(task_id, job)
        self.add(task_id)


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_fetched_jobs_share_a_micro_batch_and_end_together(worker):
    worker.fetch("a", 10)
    worker.fetch("b", 20, 30)
    worker.loop.turn()
    assert worker.scorer.num_slices == [3]
    assert worker.scorer.suspects == [["a", "b"]]
    assert worker.messages.acknowledged == {"a": True, "b": True}
    result = decode_record("b", worker.store.endings["b"].record).result
    assert [item["result"]["num_bytes"] for item in result["items"]] == [20, 30]
    assert result["batch"] == {"texts": 3, "bytes": 60}
    assert worker.loop.delay_s is None


@pytest.fixture
def patient() -> Worker:
    """A worker for whose waits the clock stands still."""
    worker = Worker()
    worker.loop._batching_delay = BatchingDelay(clock=lambda: 0.0)
    return worker


def test_jobs_after_a_micro_batch_wait_for_as_many_as_have_ended(patient):
    patient.fetch("a", 10)
    patient.fetch("b", 10)
    assert patient.loop.batching_delay_s == 0
    patient.loop.turn()
    assert patient.loop.opens_after is None
    patient.fetch("c", 10)
    assert patient.loop.batching_delay_s > 0
    # What waits is not opened, and further jobs may be fetched.
    assert patient.store.opened == [["a", "b"]]
    room = patient.loop.room()[keys.INTERACTIVE]
    assert (room.jobs, room.bytes) == (BUDGET.slices - 1, BUDGET.bytes - 10)
    patient.fetch("d", 10)
    assert patient.loop.batching_delay_s == 0
    assert patient.loop.room() == no_room(BUDGET)
    patient.loop.turn()
    assert patient.scorer.num_slices == [2, 2]


def test_parts_of_batches_and_jobs_in_hand_are_no_reason_to_wait(patient):
    for task_id in ("a.0", "a.3"):
        patient.fetch(task_id, 10, priority=keys.BULK)
    patient.loop.turn()
    assert patient.loop.opens_after == ANY_TIME
    patient.fetch("long", 60, 60)
    patient.fetch("b", 10)
    patient.fetch("c", 10)
    patient.loop.turn()
    assert patient.loop.delay_s == 0
    assert patient.loop.opens_after is None
    assert patient.loop.batching_delay_s == 0


def test_job_beyond_the_budget_takes_several_turns(worker):
    worker.fetch("a", 60, 60, 60)
    worker.loop.turn()
    assert worker.loop.delay_s == 0
    # Only the next slice of it counts.
    assert worker.loop.room()[keys.INTERACTIVE].bytes == BUDGET.bytes
    assert worker.loop.room()[keys.INTERACTIVE].busy_clients == ("",)
    assert worker.store.endings == {}
    worker.loop.turn()
    worker.loop.turn()
    assert worker.store.state("a") == "SUCCESS"
    assert worker.scorer.suspects == [["a"]] * 3


def test_text_that_takes_several_slices_counts_once(worker):
    worker.fetch("a", 10)
    (request,) = worker.store.jobs["a"].job.requests
    request["context"], request["continuations"] = request.pop("text"), ["y" * 60] * 3
    worker.fetch("b", 10)
    while worker.loop.delay_s == 0:
        worker.loop.turn()
    result = decode_record("a", worker.store.endings["a"].record).result
    assert result["continuations"] == [60] * 3
    assert worker.scorer.num_slices == [2, 1, 1]
    assert worker.status.num_texts == 2
    assert worker.status.as_json()["mean_batch_texts"] == pytest.approx(4 / 3)


def test_micro_batches_that_take_too_long_become_smaller():
    worker = Worker(replace(BUDGET, bytes=4 * MIN_BYTES), max_s=1e-9)
    worker.fetch("a", *[MIN_BYTES // 2] * 8)
    worker.fetch("b", *[MIN_BYTES // 2] * 8)
    while worker.loop.delay_s == 0:
        worker.loop.turn()
    assert worker.scorer.num_slices == [8, 4, 2, 2]
    assert worker.store.state("a") == worker.store.state("b") == "SUCCESS"


def test_long_text_is_cut_into_smaller_slices_where_micro_batches_take_too_long(monkeypatch):
    worker = Worker(replace(BUDGET, bytes=4 * MIN_BYTES), max_s=1e-9)
    limits = []

    def open_job(*args, max_slice_bytes, **options):
        limits.append(max_slice_bytes)
        return outcomes.open_job(*args, max_slice_bytes=max_slice_bytes, **options)

    monkeypatch.setattr(fetched_jobs, "open_job", open_job)
    for task_id in "abc":
        worker.fetch(task_id, MIN_BYTES)
        worker.loop.turn()
    assert limits == [4 * MIN_BYTES, 2 * MIN_BYTES, MIN_BYTES]


def test_job_that_came_late_is_scored_with_the_rest_of_an_earlier_one(worker):
    worker.fetch("a", 60, 60)
    worker.loop.turn()
    worker.fetch("b", 30)
    worker.loop.turn()
    assert worker.scorer.suspects == [["a"], ["a", "b"]]
    assert worker.store.state("a") == worker.store.state("b") == "SUCCESS"


def test_job_cancelled_between_two_micro_batches_is_dropped(worker):
    worker.fetch("a", 60, 60)
    worker.loop.turn()
    worker.store.unwanted.add("a")
    worker.loop.turn()
    assert worker.store.endings["a"].record is None
    assert worker.messages.acknowledged == {"a": False}
    assert len(worker.scorer.num_slices) == 1


def test_job_that_expires_before_its_first_micro_batch_is_not_scored(worker):
    worker.fetch("first", 100)
    worker.fetch("late", 100, deadline_s=0.05)
    worker.loop.turn()
    assert worker.store.state("first") == "SUCCESS"
    deadline = worker.store.jobs["late"].job.deadline_at
    wait_until(lambda: time.time() > deadline, timeout_s=5)
    worker.loop.turn()
    assert worker.store.error("late") == "job_expired"
    assert len(worker.scorer.num_slices) == 1


def test_jobs_that_are_not_to_be_scored_end_when_they_are_opened(worker):
    worker.fetch("late", 10, deadline_s=-1)
    worker.fetch("revoked", 10)
    worker.fetch("poison", 10)
    worker.messages.revoked.add("revoked")
    worker.messages.deaths["poison"] = 3
    worker.messages.was_alone.add("poison")
    worker.add("erased")
    worker.store.jobs["lost"] = Opened("lost", lost_facts={"num_texts": 1, "num_bytes": 10})
    worker.add("lost")
    worker.loop.turn()
    codes = {name: worker.store.error(name) for name in ("late", "revoked", "poison", "lost")}
    assert codes == {
        "late": "job_expired",
        "revoked": "job_cancelled",
        "poison": "poison_job",
        "lost": "job_lost",
    }
    assert worker.store.endings["erased"].record is None
    assert set(worker.messages.acknowledged.values()) == {False}
    assert worker.scorer.num_slices == []


def test_suspects_of_a_crash_share_no_micro_batch_with_other_jobs(worker):
    worker.fetch("suspect", 10)
    worker.fetch("other", 10)
    worker.messages.deaths["suspect"] = 1
    worker.loop.turn()
    worker.loop.turn()
    assert worker.scorer.suspects == [["suspect"], ["other"]]


def test_suspects_are_opened_apart_and_hopeless_ones_not_at_all(worker):
    for task_id, crashes in {"a": 0, "b": 2, "c": 1, "d": 3, "e": 0, "f": 2, "g": 1}.items():
        worker.fetch(task_id, 10)
        worker.messages.deaths[task_id] = crashes
    worker.messages.was_alone.add("d")
    worker.loop.turn()
    assert worker.store.error("d") == "poison_job"
    while worker.loop.delay_s is not None:
        worker.loop.turn()
    # Suspects are scored before the next ones are opened.
    assert worker.store.opened == [["a", "e"], ["b"], ["c", "g"], ["f"]]
    assert worker.scorer.suspects == [["b"], ["a", "e"], ["c", "g"], ["f"]]
    assert set(worker.messages.acknowledged) == set("abcdefg")


def test_suspects_take_turns_with_other_jobs_and_wait_for_one_another(worker):
    worker.fetch("first", 60, 60, 60)
    worker.fetch("second", 10)
    worker.messages.deaths |= {"first": 2, "second": 2}
    worker.fetch("other", 60, 60, 60)
    worker.loop.turn()
    assert worker.store.opened == [["other"], ["first"]]
    worker.fetch("late", 10)
    while worker.loop.delay_s is not None:
        worker.loop.turn()
    assert worker.store.opened == [["other"], ["first"], ["late"], ["second"]]
    assert worker.scorer.suspects == [
        *(["first"], ["other", "late"], ["first"]),
        *(["other"], ["first"], ["other"], ["second"]),
    ]


@pytest.mark.parametrize("num_crashes", [1, 2])
def test_newcomer_is_scored_in_the_second_micro_batch_whatever_suspects_wait(worker, num_crashes):
    for number in range(40):
        sizes = [100] * 30 if number % 5 == 0 else [10]
        worker.fetch(f"suspect {number}", *sizes)
        worker.messages.deaths[f"suspect {number}"] = num_crashes
        worker.messages.express.add(f"suspect {number}")
    worker.fetch("long", *[100] * 30, client="long")
    worker.fetch("batch.0", *[10] * 300, client="bulk", priority=keys.BULK)
    worker.loop.turn()
    for number in range(100):
        assert worker.loop.room()[keys.INTERACTIVE].express_bytes == BUDGET.bytes
        name = f"newcomer {number}"
        worker.fetch(name, (1, 50, 100)[number % 3], client=name)
        worker.messages.express.add(name)
        worker.loop.turn()
        worker.loop.turn()
        assert worker.store.state(name) == "SUCCESS"
    while worker.loop.delay_s is not None:
        worker.loop.turn()
    assert {worker.store.state(f"suspect {number}") for number in range(40)} == {"SUCCESS"}
    assert worker.store.state("long") == worker.store.state("batch.0") == "SUCCESS"


class Killed(BaseException):
    """Stands for the death of the process."""


def killed_by(guilty: str, worker: Worker, *, is_when_opened: bool) -> list[str] | None:
    """Run a worker that dies with `guilty`; return the suspects, or None if it scored all jobs."""
    place = worker.store if is_when_opened else worker.scorer
    name = "open_jobs" if is_when_opened else "score_slices"
    work = getattr(place, name)

    def die(*args, **kwargs):
        found = work(*args, **kwargs)
        if guilty in worker.store.suspects:
            raise Killed
        return found

    setattr(place, name, die)
    try:
        while worker.loop.delay_s is not None:
            worker.loop.turn()
    except Killed:
        return worker.store.suspects
    return None


@pytest.mark.parametrize("is_when_opened", [False, True])
def test_guilty_job_is_found_after_three_deaths_and_no_innocent_one_ends_with_it(is_when_opened):
    sizes = {f"job {n}": [10] if n % 4 else [60] * 5 for n in range(30)}
    deaths, was_alone, endings = dict.fromkeys(sizes, 0), set(), {}
    num_deaths = 0
    while sizes.keys() - endings.keys():
        worker = Worker()
        worker.messages.deaths, worker.messages.was_alone = deaths, was_alone
        for task_id in sizes.keys() - endings.keys():
            worker.fetch(task_id, *sizes[task_id])
        suspects = killed_by("job 8", worker, is_when_opened=is_when_opened)
        endings |= {each: worker.store.state(each) for each in worker.store.endings}
        for each in suspects or []:
            deaths[each] += 1
        if suspects is not None:
            num_deaths += 1
            was_alone |= set(suspects) if len(suspects) == 1 else set()
    assert num_deaths == 3
    assert {each for each, state in endings.items() if state != "SUCCESS"} == {"job 8"}


def test_hopeless_part_is_opened_once_more_for_the_names_of_its_lines(worker):
    for task_id, crashes in {"batch.0": 3, "batch.5": 4}.items():
        worker.fetch(task_id, 10)
        worker.store.jobs[task_id].job.requests[0]["custom_id"] = "mine"
        worker.messages.deaths[task_id] = crashes
        worker.messages.was_alone.add(task_id)
    worker.loop.turn()
    assert worker.store.opened == [["batch.0"]]
    assert {worker.store.error(each) for each in ("batch.0", "batch.5")} == {"poison_job"}
    lines = b"".join(pieces_of_lines(worker.store.endings["batch.0"].results.lines)).splitlines()
    assert b'"custom_id":"mine"' in lines[0]


def test_two_copies_of_a_message_are_one_job(worker):
    worker.fetch("a", 10)
    worker.fetch("a", 10)
    worker.loop.turn()
    assert worker.store.state("a") == "SUCCESS"
    assert worker.messages.acknowledged == {"a": True}


def test_job_that_cannot_be_read_is_set_aside_and_its_neighbour_scored(worker):
    for kind in ("payload", "record"):
        worker.store.jobs[kind] = Opened(kind, broken=Broken(kind, "not_json", 3, b"raw"))
        worker.add(kind)
    worker.fetch("malformed", 10)
    worker.store.jobs["malformed"].job.requests[0]["text"] = 5
    worker.fetch("good", 10)
    worker.loop.turn()
    assert worker.store.letters == [
        ("payload", "payload"),
        ("record", "record"),
        ("payload", "malformed"),
    ]
    errors = {worker.store.error(each) for each in ("payload", "record", "malformed")}
    assert errors == {"job_unreadable"}
    assert worker.store.state("good") == "SUCCESS"
    assert worker.messages.acknowledged["payload"] is False


def test_job_of_a_newer_release_is_parked_and_not_ended(worker):
    worker.store.jobs["newer"] = Opened("newer", newer_major=2)
    worker.add("newer")
    worker.fetch("good", 10)
    worker.loop.turn()
    assert worker.store.parked == {"newer": 2}
    assert worker.messages.acknowledged == {"newer": False, "good": True}
    assert "newer" not in worker.store.endings


def test_job_of_another_model_is_passed_on_and_not_scored(worker):
    worker.store.jobs["other"] = Opened("other", elsewhere="0123456789ab")
    worker.add("other")
    worker.fetch("good", 10)
    worker.loop.turn()
    assert worker.store.passed_on == {"other": "0123456789ab"}
    assert worker.messages.acknowledged == {"other": False, "good": True}
    assert "other" not in worker.store.endings


def test_result_has_the_name_that_the_job_is_bound_to_and_the_fingerprint_of_the_worker(worker):
    for name in ("", "alias"):
        worker.fetch(f"named {name}", 10)
        opened = worker.store.jobs[f"named {name}"]
        worker.store.jobs[f"named {name}"] = replace(opened, job=replace(opened.job, model=name))
    worker.loop.turn()
    for name, reply in (("", INFO.name), ("alias", "alias")):
        ending = worker.store.endings[f"named {name}"]
        model = decode_record("", ending.record).result["model"]
        assert (model["name"], model["fingerprint"]) == (reply, INFO.fingerprint)
        assert ending.fingerprint == INFO.fingerprint


def test_micro_batches_are_smaller_after_memory_ran_out(worker):
    worker.scorer.room_bytes = 60
    worker.fetch("a", 40, 40)
    worker.loop.turn()
    assert worker.store.state("a") == "SUCCESS"
    assert worker.status.batch_bytes == BUDGET.bytes // 2
    worker.fetch("b", 40, 40)
    worker.loop.turn()
    assert worker.scorer.num_slices == [1, 1, 1]


def test_status_counts_micro_batches_and_the_latency_of_interactive_jobs(worker):
    worker.fetch("a", 10)
    worker.loop.turn()
    worker.fetch("b", 20, priority=keys.BULK)
    worker.loop.turn()
    assert (worker.status.num_batches, worker.status.num_bytes) == (2, 30)
    assert len(worker.status.recent_latencies_ms) == 1
    assert worker.status.pass_bytes == 64


def test_result_that_is_not_stored_is_not_scored_again_and_holds_up_nobody(worker):
    worker.store.refused = {"a"}
    worker.fetch("a", 10)
    worker.fetch("b", 20)
    worker.loop.turn()
    assert worker.messages.acknowledged == {"b": True}
    assert 0 < worker.loop.delay_s <= 0.5
    assert worker.status.refused_since is not None
    assert worker.status.refused_endings == {"slow": 1}
    worker.fetch("c", 30)
    assert worker.loop.delay_s == 0
    worker.loop.turn()
    assert worker.messages.acknowledged == {"b": True, "c": True}
    worker.store.refused = set()
    wait_until(lambda: worker.loop.delay_s == 0, timeout_s=5)
    worker.loop.turn()
    assert worker.store.state("a") == "SUCCESS"
    assert worker.messages.acknowledged["a"] is True
    assert worker.status.refused_since is None
    assert worker.loop.delay_s is None
    assert worker.scorer.num_slices == [2, 1]


def test_worker_scores_nothing_more_while_too_many_results_wait_to_be_stored(worker):
    worker.store.refused = {"a", "b"}
    worker.store.reason = "disk"
    worker.loop._budget = replace(BUDGET, result_bytes=1)
    worker.fetch("a", 10)
    worker.loop.turn()
    worker.fetch("b", 10)
    assert worker.loop.delay_s > 0
    worker.loop.turn()
    assert worker.store.opened == [["a"]]
    assert worker.loop.room() == no_room(worker.loop._budget)
    worker.store.refused = set()
    wait_until(lambda: worker.loop.delay_s == 0, timeout_s=5)
    worker.loop.turn()
    worker.loop.turn()
    assert worker.messages.acknowledged == {"a": True, "b": True}


def test_jobs_that_redis_does_not_open_stay_in_hand(worker):
    worker.store.refuses_to_open = True
    worker.fetch("a", 10)
    worker.loop.turn()
    assert 0.5 < worker.loop.delay_s <= 1
    assert worker.loop.room() == no_room(BUDGET)
    worker.store.refuses_to_open = False
    wait_until(lambda: worker.loop.delay_s == 0, timeout_s=5)
    worker.loop.turn()
    assert worker.messages.acknowledged == {"a": True}


def test_job_that_redis_refuses_to_open_holds_up_no_other_and_is_set_aside(worker, monkeypatch):
    monkeypatch.setattr(fetched_jobs, "OPEN_AGAIN_S", 0.0)
    worker.store.not_to_be_opened = {"b"}
    for task_id in "abc":
        worker.fetch(task_id, 10)
    worker.loop.turn()
    assert worker.messages.acknowledged == {"a": True, "c": True}
    assert worker.status.refused_since is not None
    for _ in range(MAX_TRIES):
        worker.loop.turn()
    assert worker.store.letters == [("record", "b")]
    assert worker.store.dropped == ["b"]
    assert worker.messages.acknowledged["b"] is False
    assert not worker.loop.delay_s
    worker.fetch("d", 10)
    worker.loop.turn()
    assert worker.status.refused_since is None


def test_job_that_redis_refuses_to_end_is_set_aside(worker):
    worker.store.refused, worker.store.reason = {"a"}, "refused"
    worker.fetch("a", 10)
    clock = Clock()
    worker.outbox._clock = clock
    while worker.loop.delay_s is not None:
        worker.loop.turn()
        clock.now += 10
    assert worker.store.letters == [("record", "a")]
    assert worker.store.dropped == ["a"]
    assert worker.messages.acknowledged == {"a": False}


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_stages_of_a_job_are_counted_by_priority_once_it_is_stored(worker):
    worker.fetch("a", 10, priority=keys.BULK)
    worker.store.refused.add("a")
    worker.loop.turn()
    name = stage_name("store", "bulk")
    assert sum(worker.status.histograms[name].counts) == 0
    worker.store.refused.clear()
    wait_until(lambda: worker.loop.turn() or "a" in worker.store.endings)
    for stage in STAGES:
        assert sum(worker.status.histograms[stage_name(stage, "bulk")].counts) == 1
        assert sum(worker.status.histograms[stage_name(stage, "interactive")].counts) == 0
    # The result waited for at least the first back-off of the outbox.
    assert worker.status.histograms[name].sum >= FIRST_DELAY_S


def test_scores_of_a_job_are_not_kept_while_its_result_waits_to_be_stored(worker):
    worker.store.refused.add("kept")
    worker.fetch("kept", 10)
    worker.loop.turn()
    assert worker.outbox.num_bytes > 0
    gc.collect()
    jobs = [each for each in gc.get_objects() if type(each) is ScoreJob]
    assert "kept" not in [job.task_id for job in jobs]


def test_halvings_are_counted(worker):
    worker.scorer.room_bytes = 25
    for task_id in "abc":
        worker.fetch(task_id, 20)
    worker.loop.turn()
    assert worker.status.num_halvings == 1
