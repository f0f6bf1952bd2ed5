"""Reads, takes and adds queue messages of any model; reads dead letters and parked messages."""

import redis

from contract import keys
from contract.store.connection.readings import read
from contract.store.queue.dead_letters import DeadLetter, ask_letters
from contract.store.queue.parked_jobs import ask_parked

EXPRESS = "+"
"""The client that stands for all messages that go first, as in `queue.lua`."""
_PREFIX = keys.waiting("*", 0).partition("*")[0]


def waiting(client: redis.Redis, priority: int = keys.INTERACTIVE) -> list[bytes]:
    """All waiting messages of a priority: express ones first, in order within each client."""
    return [raw for name in _lists(client, priority) for raw in client.lrange(name, 0, -1)[::-1]]


def take(client: redis.Redis, priority: int = keys.INTERACTIVE) -> bytes | None:
    """Remove the next waiting message and return it; None if nothing waits."""
    for name in _lists(client, priority):
        raw = client.rpop(name)
        if not client.exists(name):
            queue, _, sender = name.decode().removeprefix(_PREFIX).partition(f":{priority}:")
            client.lrem(keys.turns(queue, priority), 0, sender)
        return bytes(raw)
    return None


def put_unbound(client: redis.Redis, *messages: bytes, priority: int = keys.INTERACTIVE) -> None:
    """Queue messages as release 0.1.0 did: any worker takes them, before all others."""
    client.lpush(keys.queue_list(priority), *messages)


def clear(client: redis.Redis) -> None:
    """Remove all waiting messages."""
    for pattern in (f"{_PREFIX}*", "evascore:turns:*", "evascore:deficits:*"):
        if names := client.keys(pattern):
            client.delete(*names)


def dead_letters(client: redis.Redis) -> list[DeadLetter]:
    """What could not be read and was set aside, oldest first."""
    return read(client, ask_letters())


def num_parked(client: redis.Redis) -> int:
    """Messages that wait for a worker of a newer release."""
    return read(client, ask_parked())


def _lists(client: redis.Redis, priority: int) -> list[bytes]:
    names = [*client.scan_iter(keys.waiting("*", priority) + "*"), *_unbound(client, priority)]
    return sorted(names, key=lambda name: (not name.endswith(EXPRESS.encode()), name))


def _unbound(client: redis.Redis, priority: int) -> list[bytes]:
    name = keys.queue_list(priority)
    return [name.encode()] if client.exists(name) else []
