"""Files on a real Redis: one client's files leave room for others, and take from its quota."""

import os
import time

import pytest

from contract import keys
from contract.api_keys import NO_QUOTA, Quota
from contract.settings import load_settings
from contract.store.admission.outcomes import NoRoom, QuotaUsedUp
from contract.store.batches.batch_store import BatchStore
from contract.store.batches.file_store import FileStore, StoredFile
from tests.contract.store.test_quotas import go_back, upload

ROOM_BYTES = 8_000_000
PIECE_BYTES = 100_000
# Redis' own buffers move by this much while the test runs.
SLACK_BYTES = 1_500_000


@pytest.fixture
def files(redis_client, job_store):
    """A store whose Redis has room for `ROOM_BYTES`."""
    limit = redis_client.info("memory")["used_memory"] + ROOM_BYTES
    settings = load_settings({"EVASCORE_MAX_REDIS_BYTES": str(limit)})
    return FileStore(redis_client, settings, job_store)


def fill(files: FileStore, client: str, quota: Quota = NO_QUOTA) -> tuple[list[str], NoRoom]:
    """Store files of three pieces each until one is refused; their IDs and the refusal."""
    stored: list[str] = []
    while True:
        file_id = files.new_id()
        try:
            for number in range(3):
                piece = os.urandom(PIECE_BYTES)
                files.add_piece(file_id, number, piece, client=client, quota=quota)
        except NoRoom as refusal:
            files.delete(file_id)
            return stored, refusal
        files.finish(a_file(file_id), quota)
        stored.append(file_id)


def a_file(file_id: str) -> StoredFile:
    now = time.time()
    return StoredFile(file_id, "f", 3 * PIECE_BYTES, 3, now, now + 60)


def num_bytes_of(files: FileStore, redis_client, client: str) -> int:
    return int(redis_client.hget(keys.FILE_CLIENTS, client) or 0)


def test_files_of_one_client_take_as_much_as_is_still_free(files, redis_client):
    stored, refusal = fill(files, "key:a")
    assert refusal.is_share
    own = num_bytes_of(files, redis_client, "key:a")
    assert own == pytest.approx(ROOM_BYTES / 2, abs=SLACK_BYTES)
    assert len(stored) * 3 * PIECE_BYTES == pytest.approx(own, rel=0.01)
    others, _ = fill(files, "key:b")
    assert others
    assert fill(files, "key:a")[0] == []


def test_files_of_one_client_take_no_more_than_its_share_of_the_queue(files, redis_client):
    quota = Quota("a", queue_share=0.1)
    _, refusal = fill(files, "key:a", quota)
    assert refusal.is_share
    own = num_bytes_of(files, redis_client, "key:a")
    share = 0.1 * refusal.memory.capacity_bytes
    assert share - 3 * PIECE_BYTES * 1.01 < own <= share


def test_files_that_are_deleted_or_expired_leave_their_room(files, redis_client):
    stored, _ = fill(files, "key:a")
    for file_id in stored[::2]:
        for _ in range(2):
            files.delete(file_id)
    left = stored[1::2]
    own = num_bytes_of(files, redis_client, "key:a")
    assert own == pytest.approx(len(left) * 3 * PIECE_BYTES, rel=0.01)
    # Time passes, as Redis sees it.
    redis_client.zadd(keys.FILES, dict.fromkeys(left, time.time() - 1))
    redis_client.delete(*map(keys.file, left))
    file_id = files.new_id()
    files.add_piece(file_id, 0, b"x", client="key:b")
    assert redis_client.hkeys(keys.FILE_CLIENTS) == [b"key:b"]
    assert redis_client.zrange(keys.FILES, 0, -1) == [file_id.encode()]
    assert redis_client.hkeys(keys.FILE_SIZES) == [file_id.encode()]
    assert all(0 < redis_client.ttl(name) <= 3600 for name in keys.STORED_FILES)
    files.delete(file_id)
    assert not redis_client.exists(*keys.STORED_FILES)


def test_piece_that_is_sent_again_counts_once(files, redis_client):
    file_id = files.new_id()
    sizes = {files.add_piece(file_id, 0, b"x" * 5000, client="key:a") for _ in range(2)}
    assert {num_bytes_of(files, redis_client, "key:a")} == sizes


def test_file_takes_one_request_and_no_bytes(files, redis_client):
    quota = Quota("a", requests_per_minute=2, bytes_per_minute=100)
    one, two, three = (files.new_id() for _ in range(3))
    for file_id in (one, two, three):
        files.add_piece(file_id, 0, b"x" * 5000, client="key:a", quota=quota)
    left = files.finish(a_file(one), quota)
    assert (left.requests, left.bytes) == (1, 100)
    # A call that is repeated after a lost answer takes nothing.
    files.finish(a_file(one), quota)
    files.finish(a_file(two), quota)
    with pytest.raises(QuotaUsedUp) as refused:
        files.finish(a_file(three), quota)
    assert 25 <= refused.value.wait_s <= 30
    go_back(redis_client, "a", 31)
    files.finish(a_file(three), quota)
    assert files.read(three).num_pieces == 3


def test_fields_of_an_openai_batch_expire_and_go_with_it(files, redis_client, settings, job_store):
    # Compressed, the word might not be found.
    redis_client.config_set("rdbcompression", "no")
    batches = BatchStore(redis_client, settings, job_store)
    ended, erased = upload(batches, NO_QUOTA), upload(batches, NO_QUOTA)
    for batch_id in (ended, erased):
        files.note_batch(batch_id, {"metadata": {"note": "Quokka"}})
        files.note_batch(batch_id, {"metadata": {"note": "later"}})
        assert files.batch_facts(batch_id) == {"metadata": {"note": "Quokka"}}
    batches.cancel(ended)
    batches.erase(erased)
    files.note_batch(erased, {"metadata": {"note": "Quokka"}})
    holding = [name for name in redis_client.keys("*") if b"Quokka" in redis_client.dump(name)]
    assert holding == [keys.batch(ended).encode()]
    assert 0 < redis_client.ttl(holding[0]) <= settings.result_ttl_s
