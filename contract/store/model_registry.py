"""Keeps in Redis which fingerprint is current for each name of a model.

A worker makes its model current when it becomes ready, once in its life: the last one counts. Redis
errors reach the caller.
"""

import redis

from contract import keys
from contract.store.scripts import register


class ModelRegistry:
    """The current fingerprint of each name, and all fingerprints that jobs may be bound to."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._register = register(client, "register_model")

    def make_current(self, name: str, fingerprint: str) -> None:
        """Have new jobs for `name` bound to `fingerprint` from now on."""
        self._register(keys=[keys.MODELS, keys.FINGERPRINTS], args=[name, fingerprint, 1])

    def keep(self, name: str, fingerprint: str) -> None:
        """Register a model again in a Redis that has lost it; another current one stays."""
        self._register(keys=[keys.MODELS, keys.FINGERPRINTS], args=[name, fingerprint, 0])

    def current(self) -> dict[str, str]:
        """The current fingerprint of each name."""
        found = self._client.hgetall(keys.MODELS)
        return {name.decode(): fingerprint.decode() for name, fingerprint in found.items()}

    def fingerprints(self) -> set[str]:
        """All fingerprints that were ever current."""
        return {each.decode() for each in self._client.smembers(keys.FINGERPRINTS)}
