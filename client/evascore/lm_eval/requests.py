"""From lm-eval's requests to items of jobs and back to their places; knows no service."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from evascore.calls import job_fields

# Several batches of the default size: what a job costs beside its texts is then nothing.
JOB_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Family:
    """Continuations of one context, which is read once, and where their answers go."""

    context: bytes
    continuations: list[bytes] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a job, and the places of its answers."""

    fields: dict[str, Any]
    num_bytes: int
    places: Sequence[int]


def split_pair(context: str, continuation: str) -> tuple[bytes, bytes]:
    """A pair as lm-eval scores it: it moves the spaces between the two to the continuation."""
    stripped = context.rstrip()
    spaces = context[len(stripped) :]
    return stripped.encode(), (spaces + continuation).encode()


def families(pairs: Iterable[tuple[bytes, bytes]], max_text_bytes: int) -> list[Family]:
    """Put the continuations of equal contexts together; empty ones have no place in any.

    A context is cut from the left where it would exceed `max_text_bytes` with its continuation, as
    lm-eval cuts it.
    """
    found: dict[bytes, Family] = {}
    for place, (context, continuation) in enumerate(pairs):
        if continuation:
            room_bytes = max(max_text_bytes - len(continuation), 0)
            context = context[max(len(context) - room_bytes, 0) :]
            family = found.setdefault(context, Family(context))
            family.continuations.append(continuation)
            family.places.append(place)
    return list(found.values())


def items_of(family: Family, max_continuations: int) -> Iterator[Item]:
    """The items of a family: more than one only where it has too many continuations."""
    for start in range(0, len(family.continuations), max_continuations):
        part = slice(start, start + max_continuations)
        continuations = family.continuations[part]
        yield Item(
            job_fields(context=family.context, continuations=continuations),
            len(family.context) + sum(map(len, continuations)),
            family.places[part],
        )


def jobs(items: Iterable[Item], max_items: int) -> Iterator[list[Item]]:
    """Cut items into jobs of about `JOB_BYTES` and at most `max_items`."""
    job: list[Item] = []
    num_bytes = 0
    for item in items:
        if job and (num_bytes + item.num_bytes > JOB_BYTES or len(job) == max_items):
            yield job
            job, num_bytes = [], 0
        job.append(item)
        num_bytes += item.num_bytes
    if job:
        yield job
