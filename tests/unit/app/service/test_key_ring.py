"""API keys while Redis is away or the file of keys is broken: which are still valid."""

import time

import pytest
import redis
from structlog.testing import capture_logs

from app.service import key_ring
from app.service.key_ring import KeyRing
from contract.api_keys import ApiKey, new_key
from contract.errors import BrokerUnavailable, Unauthorized
from contract.settings import load_settings


class Store:
    """A Redis with a hash of keys, which may be away."""

    def __init__(self, *stored: ApiKey) -> None:
        self.stored, self.is_away = list(stored), False

    def time(self) -> tuple[int, int]:
        """The time of this machine."""
        if self.is_away:
            raise redis.ConnectionError
        return int(time.time()), 0

    def hgetall(self, name: str) -> dict[bytes, bytes]:
        """All keys, whatever hash is asked for."""
        if self.is_away:
            raise redis.ConnectionError
        return {key.id.encode(): key.encode() for key in self.stored}


@pytest.fixture(autouse=True)
def always_read(monkeypatch):
    """Keys are read again for each request."""
    monkeypatch.setattr(key_ring, "MAX_AGE_S", 0.0)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys"


def write(file, *keys: ApiKey) -> None:
    # A new file, so that its time differs.
    file.unlink(missing_ok=True)
    file.write_bytes(b"\n".join(key.encode() for key in keys))


def ring_of(store: Store, file=None) -> KeyRing:
    variables = {} if file is None else {"EVASCORE_KEYS_FILE": str(file)}
    return KeyRing(store, load_settings(variables))


def test_unknown_key_is_no_wrong_key_before_redis_has_answered(file):
    (token, key), (of_file_token, of_file) = new_key("a", ["score"]), new_key("b", ["score"])
    write(file, of_file)
    store = Store(key)
    store.is_away = True
    ring = ring_of(store, file)
    assert ring.find(of_file_token) == of_file
    with pytest.raises(BrokerUnavailable):
        ring.find(token)
    for wrong in ("nonsense", f"{of_file_token[:-4]}AAAA"):
        with pytest.raises(Unauthorized):
            ring.find(wrong)
    store.is_away = False
    assert ring.find(token) == key
    store.is_away = True
    assert ring.find(token) == key
    with pytest.raises(Unauthorized):
        ring.find(new_key("c", ["score"])[0])


def test_key_removed_from_the_file_ends_while_redis_is_away(file):
    (token, key), (kept_token, kept) = new_key("a", ["score"]), new_key("b", ["score"])
    write(file, key, kept)
    store = Store()
    ring = ring_of(store, file)
    assert ring.find(token) == key
    store.is_away = True
    write(file, kept)
    with pytest.raises(Unauthorized):
        ring.find(token)
    assert ring.find(kept_token) == kept


def test_broken_file_changes_nothing_and_is_logged_once_for_each_reason(file):
    token, key = new_key("a", ["score"])
    write(file, key)
    ring = ring_of(Store(), file)
    assert ring.find(token) == key

    for content in (b"{}", b"[]", None):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        with capture_logs() as logged:
            for _ in range(3):
                assert ring.find(token) == key
        assert [line["event"] for line in logged] == ["keys_file_unreadable"]


def test_only_a_change_of_what_was_known_is_logged(file):
    (token, key), (_, of_file) = new_key("a", ["score"]), new_key("b", ["score"])
    write(file, of_file)
    store = Store(key)
    store.is_away = True
    ring = ring_of(store, file)
    with capture_logs() as logged:
        with pytest.raises(BrokerUnavailable):
            ring.find(token)
        store.is_away = False
        ring.find(token)
    assert [line["event"] for line in logged] == ["keys_unreadable"]
    store.stored = []
    with capture_logs() as logged, pytest.raises(Unauthorized):
        ring.find(token)
    assert [(line["event"], line["key_id"]) for line in logged] == [("key_removed", key.id)]
