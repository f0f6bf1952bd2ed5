"""A file of the Files API stays as long as the results of a batch that was made of it."""

import time

import pytest

from contract import keys
from contract.batches import Batch
from contract.errors import JobGone
from contract.store.batches.file_store import FileStore, StoredFile

TTL_S = 1000


class DeletedMeanwhile(FileStore):
    """Deletes each file as soon as its facts were read, as another request may."""

    def read(self, file_id: str) -> StoredFile:
        found = super().read(file_id)
        self.delete(file_id)
        return found


@pytest.fixture(params=[FileStore, DeletedMeanwhile])
def store(request, redis_client, settings, job_store) -> FileStore:
    settings = settings.model_copy(update={"result_ttl_s": TTL_S})
    return request.param(redis_client, settings, job_store)


def stored(store: FileStore) -> StoredFile:
    file_id = store.new_id()
    store.add_piece(file_id, 0, b"{}", client="c")
    now = time.time()
    file = StoredFile(file_id, "naïve.jsonl", 2, 1, now, now + TTL_S)
    store.finish(file)
    return file


def batch_until(deadline_at: float) -> Batch:
    return Batch("id", 1, 1, num_parts=1, created_at=time.time(), deadline_at=deadline_at)


@pytest.mark.parametrize("store", [FileStore], indirect=True)
@pytest.mark.parametrize("longer_s", [-1, 0.5, 5000])
def test_file_is_kept_until_the_results_of_its_batch_expire(store, redis_client, longer_s):
    file = stored(store)
    batch = batch_until(file.expires_at - TTL_S + longer_s)
    for _ in range(2):
        store.keep_for_batch(file.id, batch)
        kept = store.read(file.id)
        assert kept.expires_at == max(file.expires_at, batch.deadline_at + TTL_S)
        assert (kept.name, kept.num_bytes, kept.created_at) == (file.name, 2, file.created_at)
        expires_at = redis_client.expiretime(keys.file(file.id))
        assert kept.expires_at - 1 <= expires_at <= kept.expires_at + 1
        # As long as it is kept, its bytes count for its client.
        assert abs(redis_client.zscore(keys.FILES, file.id) - expires_at) <= 1
    assert list(store.pieces(kept)) == [b"{}"]


@pytest.mark.parametrize("store", [DeletedMeanwhile], indirect=True)
def test_file_that_is_deleted_meanwhile_stays_deleted(store, redis_client):
    file = stored(store)
    store.keep_for_batch(file.id, batch_until(time.time() + TTL_S))
    assert not redis_client.exists(keys.file(file.id))


def test_file_that_is_gone_is_not_missed(store, redis_client):
    file = stored(store)
    store.delete(file.id)
    store.keep_for_batch(file.id, batch_until(time.time() + TTL_S))
    assert not redis_client.exists(keys.file(file.id))
    with pytest.raises(JobGone):
        store.read(file.id)
