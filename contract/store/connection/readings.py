"""Combines several reads from Redis: together they take no more round trips than the longest one.

A reading is a generator: it yields the commands that it needs next, and is sent their answers.
"""

import itertools
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import redis

from contract.service_clock import CLOCK, steady

T = TypeVar("T")
Command = tuple[Any, ...]
Reading = Generator[Sequence[Command], list[Any], T]


def read(client: redis.Redis, reading: Reading[T]) -> T:
    """What `reading` returns. Redis errors reach the caller."""
    found: tuple[T] = read_together(client, reading)
    return found[0]


def read_together(client: redis.Redis, *readings: Reading[Any]) -> tuple[Any, ...]:
    """What each of `readings` returns; their commands of one round travel together.

    An error that Redis answers with is raised inside the reading that asked. One that it does not
    catch reaches the caller.
    """
    found = dict[Reading[Any], Any]()
    wanted = dict[Reading[Any], Sequence[Command]]()
    answers = dict[Reading[Any], list[Any] | None].fromkeys(readings)
    while answers:
        wanted.clear()
        for reading, answered in answers.items():
            try:
                wanted[reading] = _go_on(reading, answered)
            except StopIteration as end:
                found[reading] = end.value
        answers = _round_trip(client, wanted)
    return tuple(found[reading] for reading in readings)


def note_time() -> Reading[None]:
    """Set the clock of the service by that of Redis."""
    asked_at = steady()
    (answer,) = yield [("TIME",)]
    CLOCK.note(answer, asked_at)


def _go_on(reading: Reading[Any], answered: list[Any] | None) -> Sequence[Command]:
    """The commands that `reading` needs next. Raises: StopIteration with its value."""
    if answered is None:
        return next(reading)
    for answer in answered:
        if isinstance(answer, redis.RedisError):
            return reading.throw(answer)
    return reading.send(answered)


def _round_trip(
    client: redis.Redis, wanted: dict[Reading[Any], Sequence[Command]]
) -> dict[Reading[Any], list[Any] | None]:
    with client.pipeline(transaction=False) as pipe:
        for commands in wanted.values():
            for command in commands:
                pipe.execute_command(*command)
        answers = iter(pipe.execute(raise_on_error=False))
    return {
        reading: list(itertools.islice(answers, len(commands)))
        for reading, commands in wanted.items()
    }
