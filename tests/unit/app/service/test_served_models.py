"""The model that a request gets, from what the workers say and from the registry."""

import pytest

from app.service.recent_workers import RecentWorkers
from app.service.served_models import ServedModels, Target
from contract import keys
from contract.errors import BrokerUnavailable, ModelNotFound, WorkerUnavailable
from contract.messages import Job
from contract.settings import load_settings
from contract.worker_status import WorkerStatus

OLD, NEW, OTHER = "0" * 12, "1" * 12, "2" * 12
SETTINGS = load_settings({"EVASCORE_MODEL_NAME": "mine"})


class Jobs:
    """A job store with these workers and current models; counts how often it was read."""

    def __init__(self, *statuses: WorkerStatus, **current: str) -> None:
        self.statuses, self.current = list(statuses), current
        self.num_read = 0
        self.is_away = False

    def worker_statuses(self):
        if self.is_away:
            raise BrokerUnavailable("away")
        self.num_read += 1
        return self.statuses

    def current_models(self):
        return self.current


def worker(name: str, fingerprint: str | None, state: str = "ready", **fields) -> WorkerStatus:
    model = {"name": name, **({"fingerprint": fingerprint} if fingerprint else {})}
    return WorkerStatus(name=f"{name}-{fingerprint}-{state}", state=state, model=model, **fields)


def models_of(jobs: Jobs) -> ServedModels:
    return ServedModels(RecentWorkers(jobs, SETTINGS), SETTINGS.served_name)


MINE, THEIRS = worker("mine", NEW), worker("theirs", OTHER)
BOTH = Jobs(MINE, THEIRS, mine=NEW, theirs=OTHER)
TARGETS = {
    "default": (BOTH, "", Target("mine", NEW)),
    "alias": (BOTH, "evascore", Target("mine", NEW)),
    "name": (BOTH, "theirs", Target("theirs", OTHER)),
    "pinned": (BOTH, f"mine@{NEW}", Target("mine", NEW, is_pinned=True)),
    "pinned to the one before": (
        Jobs(worker("mine", OLD, "draining"), MINE, mine=NEW),
        *(f"mine@{OLD}", Target("mine", OLD, is_pinned=True)),
    ),
    "its workers are away": (Jobs(THEIRS, mine=OLD, theirs=OTHER), "", Target("mine", OLD)),
    "pinned, its workers are away": (
        Jobs(mine=OLD),
        *(f"mine@{OLD}", Target("mine", OLD, is_pinned=True)),
    ),
    "the only one": (Jobs(THEIRS, theirs=OTHER), "", Target("theirs", OTHER)),
    "nothing is known": (Jobs(), "", Target("", keys.UNBOUND)),
    "nothing is known, by name": (Jobs(), "mine", Target("mine", keys.UNBOUND)),
    "two others": (
        Jobs(THEIRS, worker("a", OLD), theirs=OTHER, a=OLD),
        *("", Target("", keys.UNBOUND)),
    ),
    "of release 0.1": (Jobs(worker("old", None)), "old", Target("old", keys.UNBOUND)),
    "named as the alias": (
        Jobs(MINE, worker("evascore", OTHER), mine=NEW, evascore=OTHER),
        *("evascore", Target("evascore", OTHER)),
    ),
}


@pytest.mark.parametrize(("jobs", "asked", "target"), TARGETS.values(), ids=TARGETS)
def test_a_request_gets_the_model_that_it_asks_for(jobs, asked, target):
    assert models_of(jobs).target(asked) == target


@pytest.mark.parametrize(
    "asked", ["nobodys", f"mine@{OLD}", f"theirs@{NEW}", f"evascore@{NEW}", "my secret", "?", "@"]
)
def test_a_model_that_is_not_served_is_refused_with_those_that_are(asked):
    with pytest.raises(ModelNotFound) as raised:
        models_of(BOTH).target(asked)
    assert raised.value.details == {"served": ["mine", "theirs"]}
    assert asked not in raised.value.message


def test_a_model_that_became_ready_just_now_is_not_refused():
    jobs = Jobs()
    models = models_of(jobs)
    models.listed()
    jobs.statuses, jobs.current = [THEIRS], {"theirs": OTHER}

    assert models.target("theirs").fingerprint == OTHER


def test_known_models_are_read_once_a_second():
    jobs = Jobs(MINE, mine=NEW)
    models = models_of(jobs)
    for _ in range(10):
        models.target("")
    assert jobs.num_read == 1


def test_a_redis_that_is_away_is_distinguished_from_a_model_that_is_not_served():
    jobs = Jobs()
    jobs.is_away = True
    with pytest.raises(BrokerUnavailable):
        models_of(jobs).target("theirs")


def test_a_job_is_bound_with_the_name_of_its_model():
    job = Job([{"text": "a"}], 1, 0.0, 60.0, model=f"theirs@{OTHER}")
    bound = models_of(BOTH).bound(job)
    assert (bound.model, bound.fingerprint, bound.is_pinned) == ("theirs", OTHER, True)


def test_each_model_has_its_own_limit():
    small, large = ({"name": n, "fingerprint": f} for n, f in (("mine", NEW), ("theirs", OTHER)))
    jobs = Jobs(
        WorkerStatus(name="a", state="ready", model={**small, "max_text_bytes": 50}),
        WorkerStatus(name="b", state="ready", model={**large, "max_text_bytes": 90}),
        WorkerStatus(name="c", state="ready", model={**large, "max_text_bytes": 80}),
        mine=NEW,
        theirs=OTHER,
    )
    models = models_of(jobs)

    asked = ("", None, "mine", "theirs", f"theirs@{OTHER}", "nobodys", 7)
    limits = [models.limits(each).max_text_bytes for each in asked]
    assert limits == [50, 50, 50, 80, 80, 50, 50]


def test_models_are_listed_under_the_names_that_requests_give():
    jobs = Jobs(
        worker("mine", OLD, started_at=50.0),
        worker("mine", NEW, started_at=70.0),
        worker("mine", NEW, "busy", started_at=60.0),
        worker("gone", OTHER, "draining"),
        mine=NEW,
    )
    models = models_of(jobs)

    listed = [(str(each.reference), each.num_workers, each.since) for each in models.listed()]
    assert listed == [("mine", 2, 60.0), (f"mine@{OLD}", 1, 50.0)]
    assert models.names() == ["evascore", "mine", f"mine@{OLD}"]
    assert models.default() == models.listed()[0]


def test_the_default_is_not_listed_while_its_workers_are_away():
    assert models_of(Jobs(THEIRS, mine=NEW, theirs=OTHER)).default() is None
    assert models_of(Jobs(worker("old", None))).default() is not None


@pytest.mark.parametrize("asked", ["", "mine", f"mine@{OLD}"])
def test_workers_of_another_model_do_not_make_a_model_ready(asked):
    jobs = Jobs(THEIRS, mine=OLD, theirs=OTHER)
    models = models_of(jobs)
    with pytest.raises(WorkerUnavailable):
        models.check_ready(asked)
    models.check_ready("theirs")
    jobs.statuses.append(worker("mine", OLD, "busy"))
    models.check_ready(asked)
