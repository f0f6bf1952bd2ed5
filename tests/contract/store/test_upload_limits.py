"""Uploads on a real Redis: tiny lines count in admission, and no batch waits that never fits."""

import orjson
import pytest

from app.requests.batch_upload import Receiver
from app.requests.models import BatchOptions
from app.service.recent_workers import RecentWorkers
from app.service.retry_after import RetryEstimate
from app.service.served_models import Target
from app.service.turns import LargeWork
from contract import keys
from contract.errors import BodyTooLarge, Overloaded
from contract.grammar.lines import Line
from contract.settings import load_settings
from contract.store.batches.batch_store import BatchStore
from contract.store.jobs.job_store import JobStore

LIMITS = dict.fromkeys(("bulk", "upload", "body", "text"), 640)


@pytest.fixture
def upload(redis_server, redis_client):
    """Uploads so many lines of one byte where ten fit the queue."""
    settings = load_settings(
        {
            "EVASCORE_REDIS_URL": redis_server.url,
            **{f"EVASCORE_MAX_{name.upper()}_BYTES": str(size) for name, size in LIMITS.items()},
        }
    )
    jobs = JobStore(redis_client, settings)
    batches = BatchStore(redis_client, settings, jobs)

    def receive(num_lines: int, client: str = "") -> str:
        receiver = Receiver(
            batches,
            settings,
            options=BatchOptions(),
            retry=RetryEstimate(RecentWorkers(jobs, settings)),
            target=lambda _: Target("", keys.UNBOUND),
            request_id="r",
            large_work=LargeWork(),
            client=client,
        )
        content = orjson.dumps({"text": "x"})
        lines = (Line(number, content) for number in range(1, num_lines + 1))
        return receiver.receive(lines, None).batch_id

    receive.batches = batches
    return receive


def test_tiny_lines_fill_the_queue_by_their_work(upload):
    batch_id = upload(6)
    assert upload.batches.read(batch_id).num_bytes == 6
    assert upload.batches.load().num_bytes == 6 * 64
    with pytest.raises(Overloaded) as raised:
        upload(5)
    assert raised.value.details["queued_bytes"] == 6 * 64
    upload(4, client="other")
    upload.batches.erase(batch_id)
    upload(6)


def test_batch_that_no_empty_queue_could_take_is_too_large(upload):
    with pytest.raises(BodyTooLarge, match="640 bytes, each at least 64"):
        upload(11)
    upload(10)
