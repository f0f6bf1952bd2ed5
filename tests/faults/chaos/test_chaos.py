"""A small edition of `make chaos`, and that its checks notice what is wrong."""

import random
from collections.abc import Iterator
from copy import deepcopy
from itertools import islice
from typing import Any

import pytest

from contract.store.queue.model_registry import ModelRegistry
from tests.faults.chaos.checker import Checker
from tests.faults.chaos.clients import Client
from tests.faults.chaos.faults import FAULTS, deploy_web, deploy_worker
from tests.faults.chaos.history import Entry, History, Period
from tests.faults.chaos.plan import Plan, lane
from tests.faults.chaos.run import run
from tests.faults.chaos.texts import Offline
from tests.faults.chaos.world import WORKERS, World
from tests.proxy import Proxy
from tests.service import TINY_CHECKPOINT
from tests.waiting_messages import take
from tests.web import WebServer
from tests.worker_process import submit

TEXT = "It scores."


def test_every_promise_is_kept_while_all_parts_are_broken(tmp_path):
    report = run(Plan(seconds=30, seed=1, num_clients=4, deadline_s=40), tmp_path)
    assert report.is_well, report.violations
    # How many there are in this time depends on the machine.
    assert report.faults, report
    assert report.states["SUCCESS"], report


def test_a_seed_draws_the_same_faults_and_soon_all_kinds():
    def drawn(seed: int) -> list[Any]:
        return list(islice(lane(Plan(seed=seed), 0, tuple(FAULTS)), len(FAULTS)))

    assert drawn(1) == drawn(1) != drawn(2)
    assert {step.kind for step in drawn(1)} == FAULTS.keys()


@pytest.fixture(scope="module")
def offline() -> Offline:
    found = Offline([TEXT])
    found.add(TINY_CHECKPOINT)
    return found


@pytest.fixture
def checker(tmp_path_factory, offline) -> Checker:
    history = History()
    found = Checker(World(tmp_path_factory.mktemp("world"), history), history, offline)
    (found.fingerprints["mine"],) = offline.fingerprints
    return found


def a_job(checker: Checker, offline: Offline) -> dict[str, Any]:
    """A job as a client reads it, with everything right."""
    fingerprint = checker.fingerprints["mine"]
    return {
        "id": "x",
        "state": "SUCCESS",
        "num_texts": 1,
        "submitted_at": "2026-11-22T03:54:11.000+00:00",
        "deadline_at": "2026-11-22T03:54:12.000+00:00",
        "finished_at": "2026-11-22T03:54:11.500+00:00",
        "result": {
            "num_bytes": len(TEXT),
            "custom_id": "c-1",
            "log_likelihood_nats": offline.nats(fingerprint, TEXT),
            "model": {"name": "mine", "fingerprint": fingerprint},
            "timings_ms": {"queue": 1.0, "batch_wait": 1.0},
        },
    }


def ended(state: str, code: str) -> dict[str, Any]:
    return {"state": state, "result": None, "error": {"type": code}}


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "score": ("scores are those of the command", {"result": {"log_likelihood_nats": -1.0}}),
    "text": ("nothing of another text", {"result": {"num_bytes": 3}}),
    "custom_id": ("nothing of another job", {"result": {"custom_id": "c-2"}}),
    "model": (
        "nothing of another model",
        {"result": {"model": {"name": "theirs", "fingerprint": "0"}}},
    ),
    "late": ("deadlines are kept", {"result": {"timings_ms": {"queue": 6e3, "batch_wait": 0}}}),
    "early": ("no job expires early", ended("REVOKED", "job_expired")),
    "failed": ("only what was asked for fails", ended("FAILURE", "internal_error")),
    "cancelled": ("only what was asked for fails", ended("REVOKED", "job_cancelled")),
}


def an_entry() -> Entry:
    requests = [{"text": TEXT, "custom_id": "c-1"}]
    return Entry("x", "job", "alice", "mine", None, requests, True, 0.0)


def changed(job: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The job with other fields, and with other fields of its result."""
    found = deepcopy(job)
    for name, value in change.items():
        found[name] = {**found[name], **value} if name == "result" and value else value
    return found


def test_a_job_in_order_breaks_no_promise(checker, offline):
    entry = an_entry()
    entry.final = a_job(checker, offline)
    checker.check_entry(entry)
    assert checker.history.violations == []


@pytest.mark.parametrize(("promise", "change"), WRONG.values(), ids=WRONG)
def test_a_job_that_is_wrong_breaks_its_promise(checker, offline, promise, change):
    entry = an_entry()
    entry.final = changed(a_job(checker, offline), change)
    checker.check_entry(entry)
    assert {each.promise for each in checker.history.violations} == {promise}


def test_a_job_without_a_final_state_is_lost(checker):
    checker.check_entry(an_entry())
    assert [each.promise for each in checker.history.violations] == ["every accepted ID ends"]


def test_a_job_of_the_next_release_may_lose_its_message(checker, job_store, redis_client):
    task_id = submit(job_store, 10)
    take(redis_client)
    checker.history.damaged[task_id] = "message"
    requests = [{"text": TEXT}]
    entry = Entry(task_id, "unread", "other", "mine", None, requests, True, 0.0)
    checker.check_entry(entry, job_store)
    assert checker.history.violations == []
    assert checker.states == {"REVOKED of the next release": 1}


def test_a_second_final_state_must_equal_the_first():
    history, entry = History(), an_entry()
    history.see_final(entry, {"state": "SUCCESS"})
    history.see_final(entry, {"state": "SUCCESS"})
    assert history.violations == []
    history.see_final(entry, {"state": "FAILURE"})
    assert [each.promise for each in history.violations] == ["final states never change"]


@pytest.fixture
def world_without_workers(tmp_path) -> Iterator[World]:
    """Redis and a web server that accepts work for both models."""
    world = World(tmp_path, History())
    world.redis_server.start()
    try:
        with world.redis() as redis:
            for name in set(WORKERS.values()):
                ModelRegistry(redis).make_current(name, "0" * 12)
        world.web = WebServer(tmp_path, world.redis_server.url, model_name="mine").start()
        world.proxies["clients"] = Proxy(world.web.port)
        world.proxies["next"] = Proxy(world.redis_server.port)
        yield world
    finally:
        world.stop()


def test_web_server_and_worker_of_the_next_release_take_part(world_without_workers):
    world = world_without_workers
    world.texts["other"] = [TEXT]
    deploy_web(world, "next", random.Random(1))
    assert {entry.kind for entry in world.history.entries.values()} == {"unread"}
    deploy_worker(world, "next", random.Random(1))
    log = (world.folder / "next.log").read_text()
    assert '"worker_ready"' in log
    assert '"worker_stopped"' in log


def test_late_job_is_a_violation(checker, offline):
    entry = an_entry()
    late = {"result": {"timings_ms": {"queue": 9e3, "batch_wait": 0}}}
    entry.final = changed(a_job(checker, offline), late)
    checker.check_entry(entry)
    assert [each.promise for each in checker.history.violations] == ["deadlines are kept"]


def test_fault_that_can_never_be_made_breaks_the_run(checker):
    history = checker.history
    history.note(Period("kill web", "web", 0.0, 1.0))
    for kind in ("kill web", "cut power", *["fill disk"] * 4, *["kill web"] * 4):
        history.miss(kind)
    checker.check_faults()
    assert [each.detail for each in history.violations] == ["fill disk was never made"]


class ClientWithBackup(Client):
    """Keeps what Redis held before each erasure."""

    before: dict[bytes, bytes]

    def _erase(self, entry: Entry, route: str) -> None:
        with self._world.redis() as redis:
            self.before = {name: redis.dump(name) for name in redis.scan_iter()}
        super()._erase(entry, route)


@pytest.fixture
def client(world_without_workers) -> Iterator[ClientWithBackup]:
    world = world_without_workers
    world.texts["c"], world.tokens["alice"] = [TEXT], "unused"
    found = ClientWithBackup(world, History(), "alice", "c", Plan(seed=1))
    yield found
    found._http.close()


def test_an_erased_batch_that_comes_back_breaks_its_promise(client):
    history = client._history
    # It erases one upload in six.
    for _ in range(100):
        client._upload()
        *_, entry = history.entries.values()
        if entry.erase:
            break
    assert entry.erase == "acknowledged"
    client._read_again()
    assert history.violations == []
    with client._world.redis() as redis:
        redis.flushall()
        for name, value in client.before.items():
            redis.restore(name, 0, value)
    client._read_again()
    assert [(each.promise, each.task_id) for each in history.violations] == [
        ("erasures hold", entry.task_id)
    ]
