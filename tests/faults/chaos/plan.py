"""Draws the faults of a run, their order and the pauses between them from a seed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how hard a run is; the same plan draws the same faults."""

    seconds: float = 60
    """Time in which faults begin; clients then finish what they have accepted."""
    seed: int = 0
    num_clients: int = 8
    max_lines: int = 120
    """Of one uploaded batch."""
    num_lanes: int = 2
    """Faults that happen at once, each of its own target."""
    max_pause_s: float = 3.0
    """Longest pause between two faults of a lane."""
    deadline_s: float = 150
    """Of jobs that ask for none: short enough to see that lost messages end their jobs."""
    patience_s: float = 300
    """Within this after the last fault, everything that was accepted has ended."""


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of a lane."""

    pause_s: float
    """Before it begins."""
    kind: str
    seed: int
    """Of what the fault draws itself."""


def lane(plan: Plan, number: int, kinds: Sequence[str]) -> Iterator[Step]:
    """Yield the faults of one lane without end: all kinds in a drawn order, again and again."""
    generator = random.Random(f"{plan.seed} {number}")
    while True:
        for kind in generator.sample(kinds, len(kinds)):
            yield Step(generator.uniform(0, plan.max_pause_s), kind, generator.getrandbits(32))
