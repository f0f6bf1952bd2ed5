"""Keeps in Redis which fingerprint is current for each name of a model, and counts what waits.

A worker makes its model current when it becomes ready, once in its life: the last one counts. Where
that model is gone, a worker that is still there takes the name back. Redis errors reach the caller.
"""

from dataclasses import dataclass, field

import redis

from contract import keys
from contract.store.connection.readings import Reading
from contract.store.connection.scripts import register, script_command

PRIORITY_NAMES = {"interactive": keys.INTERACTIVE, "bulk": keys.BULK}


@dataclass(frozen=True, slots=True)
class ModelQueue:
    """The jobs and parts of batches that no worker has fetched yet, of one model."""

    fingerprint: str
    """`UNBOUND` for what was accepted before any model was known."""
    name: str
    """The name that the model is current for; '' if it is current for none."""
    interactive: int
    bulk: int
    oldest_at: dict[str, float] = field(default_factory=dict)
    """When the oldest message of a priority was submitted: Unix time, seconds; absent without."""


class ModelRegistry:
    """The current fingerprint of each name, and all fingerprints that jobs may be bound to."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._register = register(client, "register_model")

    def make_current(self, name: str, fingerprint: str) -> None:
        """Have new jobs for `name` bound to `fingerprint` from now on: a worker is ready."""
        self._register(keys=[keys.MODELS, keys.FINGERPRINTS], args=[name, fingerprint, "any"])
        # Of a worker that stopped because its model gave a wrong score.
        self._client.delete(keys.MODEL_DRIFTED)

    def keep(self, name: str, fingerprint: str) -> None:
        """Register a model again in a Redis that has lost it; another current one stays."""
        self._register(keys=[keys.MODELS, keys.FINGERPRINTS], args=[name, fingerprint, ""])

    def replace(self, name: str, gone: str, fingerprint: str) -> bool:
        """Make `fingerprint` current if `gone` still is; return whether it is current now."""
        keys_of_models = [keys.MODELS, keys.FINGERPRINTS]
        return bool(self._register(keys=keys_of_models, args=[name, fingerprint, gone]))

    def current(self) -> dict[str, str]:
        """The current fingerprint of each name."""
        found = self._client.hgetall(keys.MODELS)
        return {name.decode(): fingerprint.decode() for name, fingerprint in found.items()}

    def fingerprints(self) -> set[str]:
        """All fingerprints that were ever current."""
        return {each.decode() for each in self._client.smembers(keys.FINGERPRINTS)}

    def forget(self, fingerprint: str) -> None:
        """Forget a model that no job is bound to any more."""
        self._client.srem(keys.FINGERPRINTS, fingerprint)


def ask_model_drifted() -> Reading[bool]:
    """Whether a worker stopped because of its model and no worker became ready since."""
    (count,) = yield [("EXISTS", keys.MODEL_DRIFTED)]
    return bool(count)


def ask_queues() -> Reading[list[ModelQueue]]:
    """The queues of all current models, and of others that are not empty."""
    current, known = yield [("HGETALL", keys.MODELS), ("SMEMBERS", keys.FINGERPRINTS)]
    names = {fingerprint.decode(): name.decode() for name, fingerprint in current.items()}
    models = [keys.UNBOUND, *sorted({each.decode() for each in known} | names.keys())]
    steps = [(model, priority) for model in models for priority in keys.PRIORITY_STEPS]
    queue_keys = [key for step in steps for key in (keys.turns(*step), keys.waiting(*step))]
    (counts,) = yield [script_command("count_waiting", queue_keys)]
    waiting = dict(zip(steps, map(int, counts[::2]), strict=True))
    oldest = dict(zip(steps, counts[1::2], strict=True))
    found = [
        ModelQueue(
            *(model, names.get(model, "")),
            interactive=waiting[model, keys.INTERACTIVE],
            bulk=waiting[model, keys.BULK],
            oldest_at={
                name: float(oldest[model, priority])
                for name, priority in PRIORITY_NAMES.items()
                if oldest[model, priority]
            },
        )
        for model in models
    ]
    return [each for each in found if each.name or each.interactive or each.bulk]
