"""Keeps API keys in Redis, and reads those of a file."""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import redis

from contract import keys
from contract.api_keys import ApiKey, NotAKey, check_key, decode_key, rotated
from contract.logs import get_logger
from contract.setting_refusals import environment_name
from contract.settings import Settings, SettingsInvalid

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
            NotAKey: `grace_s` is no time.
        """
        token, new = rotated(key)
        ends_at = time.time() + grace_s
        old = replace(key, expires_at=min(key.expires_at or ends_at, ends_at))
        check_key(old)
        with self._client.pipeline() as pipe:
            pipe.hset(keys.API_KEYS, new.id, new.encode())
            pipe.hset(keys.API_KEYS, old.id, old.encode()).execute()
        return token, new


def read_keys_file(path: Path) -> list[ApiKey]:
    """The keys of a file with one entry per line, as `python -m app.keys create --entry` prints it.

    Raises:
        NotAKey: with the number of the line.
        OSError
    """
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(decode_key(line))
        except NotAKey as error:
            raise NotAKey(f"line {number} of {path} is no key: {error}") from None
    return found


def check_keys_file(settings: Settings) -> None:
    """Check that the file of keys, if there is one, can be used.

    Raises:
        SettingsInvalid
    """
    name, path = environment_name("keys_file"), settings.keys_file
    if path is None:
        return
    try:
        read_keys_file(path)
    except NotAKey as error:
        raise SettingsInvalid(f"{name}: {error}") from None
    except OSError as error:
        raise SettingsInvalid(
            f"{name}: {path} cannot be read ({error.strerror}); check the path and its permissions"
        ) from None
