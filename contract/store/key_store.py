"""Keeps API keys in Redis."""

from collections.abc import Iterable
from dataclasses import replace

import redis

from contract import keys
from contract.api_keys import ApiKey, NotAKey, check_key, decode_key, rotated
from contract.logs import get_logger
from contract.service_clock import CLOCK

log = get_logger(__name__)


class KeyStore:
    """The keys that `python -m app.keys` makes; Redis errors reach the caller."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def all(self) -> list[ApiKey]:
        """All keys, expired ones too, by name and age; what cannot be read is logged."""
        found = []
        for key_id, raw in self._client.hgetall(keys.API_KEYS).items():
            try:
                found.append(decode_key(raw))
            except NotAKey as error:
                log.error("key_unreadable", key_id=key_id.decode(), reason=str(error))
        return sorted(found, key=lambda key: (key.name, key.created_at))

    def note_time(self) -> None:
        """Set the clock of the service by that of Redis."""
        CLOCK.ask(self._client)

    def add(self, key: ApiKey) -> None:
        """Keep a key; web servers know it within a second or two."""
        self._client.hset(keys.API_KEYS, key.id, key.encode())

    def revoke(self, chosen: Iterable[ApiKey]) -> int:
        """Delete keys; return how many there were."""
        ids = [key.id for key in chosen]
        return int(self._client.hdel(keys.API_KEYS, *ids)) if ids else 0

    def rotate(self, key: ApiKey, grace_s: float) -> tuple[str, ApiKey]:
        """Replace a key by a new one; the old one is valid for `grace_s` seconds more.

        Returns:
            The token and the new key.

        Raises:
            NotAKey: `grace_s` is not a time.
        """
        token, new = rotated(key)
        self.note_time()
        ends_at = CLOCK.now() + grace_s
        old = replace(key, expires_at=min(key.expires_at or ends_at, ends_at))
        check_key(old)
        with self._client.pipeline() as pipe:
            pipe.hset(keys.API_KEYS, new.id, new.encode())
            pipe.hset(keys.API_KEYS, old.id, old.encode()).execute()
        return token, new
