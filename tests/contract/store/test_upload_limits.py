"""Uploads on a real Redis: tiny lines count in admission, and no batch waits that never fits.

What is stored of one client's uploads leaves room for others.
"""

import os
import time
from base64 import b64encode

import orjson
import pytest

from app.requests.batch_upload import Receiver
from app.requests.models import BatchOptions
from app.service.recent_workers import RecentWorkers
from app.service.retry_after import RetryEstimate
from app.service.served_models import Target
from app.service.turns import LargeWork
from contract import keys
from contract.batches import Batch, Part
from contract.errors import BodyTooLarge, Overloaded
from contract.grammar.lines import Line
from contract.messages import Job
from contract.settings import Settings, load_settings
from contract.store.admission.outcomes import NoRoom
from contract.store.batches.batch_store import BatchStore
from contract.store.jobs.job_store import JobStore
from tests.contract.store.test_job_store import a_job

ROOM_BYTES = 8_000_000
# Redis' own buffers move by this much while the test runs.
SLACK_BYTES = 1_500_000
LIMITS = dict.fromkeys(("bulk", "upload", "body", "text"), 640)


@pytest.fixture
def crowded(redis_client):
    """Settings for which Redis has room for `ROOM_BYTES`."""
    limit = redis_client.info("memory")["used_memory"] + ROOM_BYTES
    return load_settings({"EVASCORE_MAX_REDIS_BYTES": str(limit)})


def fill(batches: BatchStore, client: str) -> tuple[Batch, NoRoom]:
    """An upload that goes on until it is refused, and the refusal."""
    now, batch_id, num_parts = time.time(), batches.new_id(), 0
    text = b64encode(os.urandom(100_000)).decode()
    job = Job([{"text": text}], len(text), now, now + 60, is_single=False)
    while True:
        try:
            batches.store_parts(batch_id, [(Part(num_parts, 1, len(text)), job)], client)
        except NoRoom as refusal:
            batch = Batch(batch_id, num_parts, num_parts, num_parts, now, now + 60, client=client)
            return batch, refusal
        num_parts += 1


def num_bytes_of(redis_client, client: str) -> int:
    return int(redis_client.hget(keys.UPLOAD_CLIENTS, client) or 0)


def received(
    store: BatchStore, settings: Settings, line: bytes, num_lines: int, client: str = ""
) -> str:
    """The ID of the batch that so many times `line` became."""
    receiver = Receiver(
        store,
        settings,
        options=BatchOptions(),
        retry=RetryEstimate(RecentWorkers(store._jobs, settings)),
        target=lambda _: Target("", keys.UNBOUND),
        request_id="r",
        large_work=LargeWork(),
        client=client,
    )
    lines = (Line(number, line) for number in range(1, num_lines + 1))
    return receiver.receive(lines, None).batch_id


@pytest.fixture
def batches(redis_client, job_store, settings):
    return BatchStore(redis_client, settings, job_store)


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
        return received(batches, settings, orjson.dumps({"text": "x"}), num_lines, client)

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


def test_uploads_of_one_client_take_as_much_as_is_still_free(redis_client, crowded):
    jobs = JobStore(redis_client, crowded)
    batches = BatchStore(redis_client, crowded, jobs)
    batch, refusal = fill(batches, "key:a")
    assert refusal.is_share
    own = num_bytes_of(redis_client, "key:a")
    assert own == pytest.approx(ROOM_BYTES / 2, abs=SLACK_BYTES)
    assert own == redis_client.hlen(keys.batch_texts(batch.id)) * refusal.needed_bytes
    # It gets no more by a second upload, and others find room.
    assert fill(batches, "key:a")[0].num_parts == 0
    jobs.submit(a_job(client="key:b"))
    other, _ = fill(batches, "key:b")
    assert other.num_parts


def test_slow_upload_is_kept_until_redis_is_over_its_limit(redis_client, crowded):
    batches = BatchStore(redis_client, crowded, JobStore(redis_client, crowded))
    batch, _ = fill(batches, "key:a")
    batches.store_parts(batch.id, [], "key:a")
    redis_client.set("ballast", bytes(ROOM_BYTES))
    with pytest.raises(NoRoom) as refused:
        batches.store_parts(batch.id, [], "key:a")
    assert not refused.value.is_share


def test_parts_that_are_stored_again_count_once(redis_client, batches):
    part = Part(0, 1, 64), a_job()
    sizes = {batches.store_parts("b", [part], "key:a") for _ in range(2)}
    assert {num_bytes_of(redis_client, "key:a")} == sizes


@pytest.mark.parametrize("end", ["accepted", "discarded", "expired"])
def test_upload_that_ended_leaves_its_share(redis_client, batches, end):
    job = a_job()
    batch_id, now = batches.new_id(), time.time()
    batches.store_parts(batch_id, [(Part(0, 1, 64), job)], "key:a")
    assert num_bytes_of(redis_client, "key:a")
    assert all(0 < redis_client.ttl(name) <= 120 for name in keys.STORED_UPLOADS)
    if end == "accepted":
        batch = Batch(batch_id, 1, 1, 1, now, now + 60, client="key:a")
        batches.accept(batch, work_bytes=64)
    elif end == "discarded":
        batches.discard_upload(batch_id)
    else:
        # Time passes, as Redis sees it.
        redis_client.zadd(keys.UPLOADS, {batch_id: now - 1})
        other_id = batches.new_id()
        batches.store_parts(other_id, [(Part(0, 1, 64), job)], "key:b")
        batches.discard_upload(other_id)
    assert not redis_client.exists(*keys.STORED_UPLOADS)


@pytest.mark.parametrize(
    ("ballast_bytes", "room_bytes", "refusal"),
    [(0, 1_500_000, BodyTooLarge), (12_000_000, 4_000_000, Overloaded)],
)
def test_upload_beyond_its_share_is_refused_and_forgotten(
    redis_client, ballast_bytes, room_bytes, refusal
):
    redis_client.set("ballast", bytes(ballast_bytes))
    limit = redis_client.info("memory")["used_memory"] + room_bytes
    settings = load_settings({"EVASCORE_MAX_REDIS_BYTES": str(limit)})
    batches = BatchStore(redis_client, settings, JobStore(redis_client, settings))
    text = b64encode(os.urandom(20_000)).decode()
    with pytest.raises(refusal, match="several batches"):
        received(batches, settings, orjson.dumps({"text": text}), 1000)
    left = {b"ballast", keys.ID_SECRET.encode(), keys.FORGETTABLE_SINCE.encode()}
    assert set(redis_client.scan_iter()) == left
