"""A worker that is killed: its jobs come again in seconds, and only a poisonous one is blamed."""

import pytest

from contract import keys
from contract.errors import PoisonJob
from contract.settings import load_settings
from tests.conftest import wait_until
from tests.faults.conftest import MARKER, RECOVERY_S

# Long enough to be met in the middle of: many batches of the default size.
LONG = {"items": [{"text": f"{MARKER} {n} " + "x" * 3_500} for n in range(30)]}
SHORT = {"text": f"{MARKER} is a word."}


def is_aboard(redis, task_id):
    """Whether the job is in the batch that the worker now runs."""
    names = redis.smembers(keys.WORKERS)
    return any(redis.sismember(keys.aboard(name.decode()), task_id) for name in names)


def test_jobs_of_a_killed_worker_are_scored_by_its_successor(service, client):
    ids = [
        client.submit(LONG),
        *(client.submit(SHORT) for n in range(20)),
    ]
    with service.redis() as redis:
        wait_until(lambda: is_aboard(redis, ids[0]))
    service.part("worker").kill()
    # The client's patience is the limit: without a successor they would never end.
    jobs = [client.ended(task_id) for task_id in ids[1:]]
    assert {job["state"] for job in [*jobs, client.ended(ids[0])]} == {"SUCCESS"}


def test_poisonous_job_fails_and_its_mates_succeed(service, client):
    mates = [client.submit(SHORT) for _ in range(5)]
    poison = client.submit(LONG)
    max_crashes = load_settings({}).max_crashes
    for _ in range(max_crashes):
        worker = service.part("worker")
        with service.redis() as redis:
            wait_until(lambda: is_aboard(redis, poison), RECOVERY_S, every_s=0.002)
            worker.kill()
            # Its successor asks who was aboard, and then nobody is.
            wait_until(lambda: not is_aboard(redis, poison), RECOVERY_S)
    job = client.ended(poison)
    assert job["state"] == "FAILURE"
    assert job["error"]["type"] == PoisonJob.code
    assert {client.ended(mate)["state"] for mate in mates} == {"SUCCESS"}


@pytest.mark.parametrize("part", ["web", "redis", "worker"])
def test_killed_part_is_back(service, client, part):
    service.part(part).kill()
    job = client.ended(client.submit(SHORT))
    assert job["state"] == "SUCCESS"
