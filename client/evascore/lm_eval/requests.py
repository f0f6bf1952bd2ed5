"""Converts lm-eval's requests to items of jobs, and keeps where each answer belongs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from evascore.operations.calls import job_fields
from evascore.operations.grouping import grouped

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
    """Yield the items of a family; several if it has many or large continuations.

    Each has about `JOB_BYTES` of them at most, so that none exceeds the limits of a request.
    """
    pairs = zip(family.continuations, family.places, strict=True)
    for part in grouped(pairs, lambda pair: len(pair[0]), JOB_BYTES, max_continuations):
        continuations = [continuation for continuation, _ in part]
        yield Item(
            job_fields(context=family.context, continuations=continuations),
            len(family.context) + sum(map(len, continuations)),
            [place for _, place in part],
        )


def jobs(items: Iterable[Item], max_items: int) -> Iterator[list[Item]]:
    """Group items into jobs of about `JOB_BYTES` and at most `max_items` items."""
    return grouped(items, lambda item: item.num_bytes, JOB_BYTES, max_items)
