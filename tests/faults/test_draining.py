"""SIGTERM: the batch in hand is finished, the rest waits in the data folder for the next start."""

from contract import keys
from tests.conftest import wait_until
from tests.faults.conftest import MARKER, RECOVERY_S
from tests.patient_client import PatientClient

LONG = {"items": [{"text": f"{MARKER} {n} " + "x" * 3_500} for n in range(6)]}


def test_stopped_service_goes_on_where_it_was(start_service):
    service = start_service()
    with PatientClient(service.url) as client:
        ids = [client.submit(LONG) for _ in range(5)]
    with service.redis() as redis:
        wait_until(lambda: redis.exists(*map(keys.aboard, worker_names(redis))))
    assert service.stop(timeout_s=RECOVERY_S) == 0
    service.start()
    with PatientClient(service.url) as client:
        assert {client.ended(task_id)["state"] for task_id in ids} == {"SUCCESS"}
    with service.redis() as redis:
        assert int(redis.hget(keys.TOTALS, "jobs_succeeded")) == len(ids)
    assert "crash" not in service.log.read_text()


def worker_names(redis):
    """The names of the workers that hold a lease."""
    return [name.decode() for name in redis.smembers(keys.WORKERS)]
