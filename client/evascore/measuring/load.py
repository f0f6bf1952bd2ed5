"""Puts a load on a service and measures its latency and throughput.

Closed loop: a number of clients send one text at a time each, so the service sets the pace. Open
loop: texts arrive at random times (a Poisson process) at a given mean rate, whatever the service
does. There a latency counts from the time when the text was due, not from when it was sent.
Otherwise a service that falls behind would hide it by delaying its clients.
"""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import mean
from typing import Any, Literal

from evascore.aio import AsyncClient
from evascore.errors import EvascoreError, ServiceError
from evascore.measuring import synthetic
from evascore.operations.api import Operations
from evascore.operations.retrying import Call
from evascore.results import Score
from evascore.texts import Text, length_bytes
from evascore.wording import counted

# Requests at once in an open loop; a text that arrives beyond them counts as an error.
MAX_UNDER_WAY = 512
# Number and size of the distinct texts; a measurement that needs more uses them again.
MAX_TEXTS = 2048
MAX_TEXTS_BYTES = 4 * 1024**2
_STAGES: tuple[Literal["queue", "batch_wait", "compute"], ...] = ("queue", "batch_wait", "compute")


@dataclass(frozen=True, slots=True)
class Load:
    """The load to put on the service; give either `clients` or `rate_per_s`."""

    clients: int | None = None
    rate_per_s: float | None = None
    duration_s: float = 10.0
    warm_up_s: float = 1.0
    timeout_s: float = 30.0
    seed: int = 0

    @property
    def label(self) -> str:
        """Its name in a table."""
        return counted(self.clients, "client") if self.clients else f"{self.rate_per_s:g} texts/s"


@dataclass(slots=True)
class Sample:
    """Collects latencies and errors after the warm-up."""

    latencies_ms: list[float] = field(default_factory=list)
    num_bytes: int = 0
    batch_texts: list[int] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=lambda: {s: [] for s in _STAGES})
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, score: Score, latency_ms: float) -> None:
        """Add a text that was scored."""
        self.latencies_ms.append(latency_ms)
        self.num_bytes += score.num_bytes
        self.batch_texts.append(int(score.batch.get("texts", 1)))
        for stage in _STAGES:
            self.stages_ms[stage].append(score.timings_ms.get(stage, 0.0))


@dataclass(frozen=True, slots=True)
class Measurement:
    """The figures of one load; latencies are in milliseconds."""

    load: str
    texts: int
    errors: dict[str, int]
    texts_per_s: float
    bytes_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mean_batch_texts: float | None
    stages_p50_ms: dict[str, float | None]


async def measure(client: AsyncClient, load: Load, texts: Sequence[str | bytes]) -> Measurement:
    """Put a load on the service and return its figures."""
    run = _Run(client, load, texts)
    await (run.closed() if load.clients else run.open())
    return _summary(load, run.sample, run.measured_s)


def make_texts(recipe: synthetic.Recipe) -> list[str | bytes]:
    """Make the texts of a measurement."""
    count = max(min(MAX_TEXTS, MAX_TEXTS_BYTES // recipe.max_bytes), 1)
    return list(islice(synthetic.texts(recipe), count))


def arrivals(rate_per_s: float, duration_s: float, seed: int) -> Iterator[float]:
    """Yield the times of a Poisson process, in seconds from its start."""
    generator, at = random.Random(seed), 0.0
    while (at := at - math.log(1.0 - generator.random()) / rate_per_s) < duration_s:
        yield at


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of the values do not exceed; None for no values."""
    if not values:
        return None
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


class _Run:
    """One running measurement."""

    def __init__(self, client: AsyncClient, load: Load, texts: Sequence[str | bytes]) -> None:
        self._client, self._load, self._texts = client, load, texts
        self._next = 0
        self._begin = time.monotonic()
        self.sample = Sample()
        self.measured_s = 0.0

    async def closed(self) -> None:
        """Run clients that wait for each answer before they send the next text."""
        assert self._load.clients is not None
        end = self._begin + self._load.warm_up_s + self._load.duration_s
        await asyncio.gather(*(self._one_client(end) for _ in range(self._load.clients)))
        self._finish()

    async def open(self) -> None:
        """Send each text when it is due."""
        load, under_way = self._load, set[asyncio.Task[float | None]]()
        assert load.rate_per_s is not None
        for at in arrivals(load.rate_per_s, load.warm_up_s + load.duration_s, load.seed):
            due = self._begin + at
            await asyncio.sleep(max(due - time.monotonic(), 0))
            if len(under_way) >= MAX_UNDER_WAY:
                if self._counts(due):
                    self.sample.errors["not_sent_too_many_under_way"] += 1
                continue
            task = asyncio.create_task(self._score(due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
        self._finish()

    async def _one_client(self, end: float) -> None:
        while (now := time.monotonic()) < end:
            pause_s = await self._score(now)
            if pause_s is not None:
                await asyncio.sleep(min(pause_s, max(end - time.monotonic(), 0)))

    async def _score(self, due: float) -> float | None:
        """Send the next text; after an error, return the seconds that a polite client pauses."""
        text = Text(self._texts[self._next % len(self._texts)])
        self._next += 1
        # No retries, and no circuit shared between requests: every failure is counted.
        call, operations = Call.begin(self._load.timeout_s, 0), Operations(self._client.model)
        try:
            job = await self._client.run(operations.complete(text.fields(), call, key=None))
            score = job.score()
        except EvascoreError as error:
            named_s = error.retry_after_s if isinstance(error, ServiceError) else None
            if self._counts(due):
                self.sample.errors[_kind(error)] += 1
            return 1.0 if named_s is None else named_s
        if self._counts(due):
            self.sample.add(score, (time.monotonic() - due) * 1000)
        return None

    def _counts(self, due: float) -> bool:
        """Whether the warm-up was over when the text was due, or for clients, when it ended."""
        at = time.monotonic() if self._load.clients else due
        return at >= self._begin + self._load.warm_up_s

    def _finish(self) -> None:
        """Stop the clock after the last answer: texts that were sent in time count."""
        self.measured_s = time.monotonic() - self._begin - self._load.warm_up_s


def _kind(error: EvascoreError) -> str:
    return error.type if isinstance(error, ServiceError) else type(error).__name__


def _summary(load: Load, sample: Sample, measured_s: float) -> Measurement:
    p50, p95, p99 = (percentile(sample.latencies_ms, share) for share in (0.5, 0.95, 0.99))
    batches = sample.batch_texts
    return Measurement(
        load=load.label,
        texts=len(sample.latencies_ms),
        errors=dict(sample.errors),
        texts_per_s=len(sample.latencies_ms) / measured_s,
        bytes_per_s=sample.num_bytes / measured_s,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        # Each of the n texts of a micro-batch reports n: the mean of 1/n is micro-batches per text.
        mean_batch_texts=1 / mean(1 / texts for texts in batches) if batches else None,
        stages_p50_ms={name: percentile(times, 0.5) for name, times in sample.stages_ms.items()},
    )


def describe(texts: Sequence[str | bytes]) -> dict[str, Any]:
    """Summarize the lengths of the texts, in bytes."""
    sizes = sorted(map(length_bytes, texts))
    return {
        "min_bytes": sizes[0],
        "median_bytes": percentile(sizes, 0.5),
        "mean_bytes": round(mean(sizes), 1),
        "max_bytes": sizes[-1],
    }
