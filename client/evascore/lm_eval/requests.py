"""Converts lm-eval's requests to items of jobs, and keeps where each answer belongs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from evascore.operations.calls import job_fields

# Four micro-batches of the default size: the fixed cost of a job is small beside its texts.
JOB_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Family:
    """Continuations of one context, which the model reads once, and the places of their answers."""

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
    """Encode a pair as lm-eval scores it: spaces between the two move to the continuation."""
    stripped = context.rstrip()
    spaces = context[len(stripped) :]
    return stripped.encode(), (spaces + continuation).encode()


def families(pairs: Iterable[tuple[bytes, bytes]], max_text_bytes: int) -> list[Family]:
    """Group continuations by their context; empty continuations are left out.

    As in lm-eval, a context is cut from the left where it exceeds `max_text_bytes` together with
    its continuation.
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
    """Yield the items of a family; several if it has more than `max_continuations`."""
    for start in range(0, len(family.continuations), max_continuations):
        part = slice(start, start + max_continuations)
        continuations = family.continuations[part]
        yield Item(
            job_fields(context=family.context, continuations=continuations),
            len(family.context) + sum(map(len, continuations)),
            family.places[part],
        )


def jobs(items: Iterable[Item], max_items: int) -> Iterator[list[Item]]:
    """Group items into jobs of about `JOB_BYTES` and at most `max_items` items."""
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
