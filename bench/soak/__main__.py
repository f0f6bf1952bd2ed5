"""Puts hours of mixed load on a service, at 70 % and then at 300 % of its capacity.

    python -m bench.soak --minutes 120

Three owners of API keys send all kinds of work: they make the load. A fourth sends one short text
after the other and waits for each result; its latency is reported. First the capacity is measured:
the requests per second that 16 waiting clients get with the same mix. A shared machine changes its
speed within hours, so the calm phase measures it again at the end of each tenth.
"""

import argparse
import asyncio
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from bench.results import Results
from bench.soak.memory import Memory
from bench.soak.mix import Answered, Owner
from contract.api_keys import new_key
from contract.settings import DEMO_CHECKPOINT
from contract.store.key_store import KeyStore
from evascore.measuring import synthetic
from evascore.measuring.load import make_texts, percentile
from tests.service import Service

OWNERS = ("alice", "bob", "carol")
INTERACTIVE = "dora"
KINDS = {
    "text": 60.0,
    "items": 10.0,
    "details": 8.0,
    "next characters": 5.0,
    "batch": 3.0,
    "cancel": 7.0,
    "erase": 7.0,
}
MAX_TEXT_BYTES = 400
NUM_CLIENTS = 16
# Short, so that the load is 70 % for nearly all of the time.
MEASURING_S = 10.0
# What may wait before requests get 503: some seconds of work, as an operator sets it who wants
# short waits more than a long queue.
MAX_QUEUED_JOBS = 300
MAX_QUEUED_BATCHES = 20


class Phase(NamedTuple):
    """A part of the run with one load."""

    name: str
    share_of_capacity: float
    seconds: float
    follows_capacity: bool = False
    """Whether the load follows the speed of the machine, measured at the end of each tenth."""


class Period(NamedTuple):
    """A phase that has ended."""

    phase: Phase
    began: float
    """Monotonic time, seconds."""
    ended: float


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--capacity-s", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=Path(DEMO_CHECKPOINT))
    options = parser.parse_args()
    setup = {
        "minutes": options.minutes,
        "kinds": KINDS,
        "max_text_bytes": MAX_TEXT_BYTES,
        "max_queued_jobs": MAX_QUEUED_JOBS,
        "max_queued_batches": MAX_QUEUED_BATCHES,
        "model": options.model.name,
        "seed": options.seed,
    }
    with Results("soak", setup) as results, tempfile.TemporaryDirectory() as folder:
        results.step("start the service")
        service = Service(
            Path(folder),
            options.model,
            auth="keys",
            max_queued_jobs=MAX_QUEUED_JOBS,
            max_queued_batches=MAX_QUEUED_BATCHES,
            forget_s=600,
        ).start()
        try:
            asyncio.run(_soak(service, options, results))
        finally:
            service.stop()


async def _soak(service: Service, options: argparse.Namespace, results: Results) -> None:
    owners = _owners(service, options.seed)
    memory = Memory(lambda: _processes(service), service.redis)
    memory.start()
    try:
        results.step("measure the capacity")
        capacities = [await _capacity(owners, options.capacity_s)]
        for phase in phases(options.minutes * 60):
            results.step(f"{phase.name}: {phase.seconds:.0f} s")
            began = time.monotonic()

            def put(phase: Phase = phase, began: float = began, *, is_printed: bool = True) -> None:
                period = Period(phase, began, time.monotonic())
                measured = [round(each, 1) for each in capacities]
                figures = {"capacity_requests_per_s": measured, **_figures(period, owners, memory)}
                results.put(figures, is_printed=is_printed)

            await _run_phase(
                owners, phase, capacities, options.seed, partial(put, is_printed=False)
            )
            put()
    finally:
        memory.stop()
        for owner in owners.values():
            await owner.close()


def phases(seconds: float) -> list[Phase]:
    """Divide the time of a run: calm, overload, calm again."""
    return [
        Phase("calm", 0.7, 0.45 * seconds, follows_capacity=True),
        Phase("overload", 3.0, 0.45 * seconds),
        Phase("after", 0.7, 0.1 * seconds),
    ]


def _owners(service: Service, seed: int) -> dict[str, Owner]:
    recipe = synthetic.Recipe(seed=seed, min_bytes=20, max_bytes=MAX_TEXT_BYTES)
    texts = [each for each in make_texts(recipe) if isinstance(each, str)]
    owners = {}
    with service.redis() as server:
        store = KeyStore(server)
        for number, name in enumerate((*OWNERS, INTERACTIVE)):
            token, key = new_key(name, ["score", "bulk"])
            store.add(key)
            owners[name] = Owner(service.url, token, texts, seed + number)
    return owners


def _processes(service: Service) -> dict[str, psutil.Process]:
    """The processes of the service; the web server's own child by itself."""
    web = service.part("web")
    found = {"redis": service.part("redis"), "worker": service.part("worker"), "web": web}
    found.update({f"web_child_{n}": each for n, each in enumerate(web.children())})
    return found


async def _capacity(owners: dict[str, Owner], seconds: float) -> float:
    """Requests per second of clients that wait for each answer; the first third warms up."""
    clients = [owners[OWNERS[number % len(OWNERS)]] for number in range(NUM_CLIENTS)]
    await asyncio.gather(*(each.repeat(KINDS, seconds / 3) for each in clients))
    num_before, began = _total(owners).total(), time.monotonic()
    await asyncio.gather(*(each.repeat(KINDS, seconds * 2 / 3) for each in clients))
    return (_total(owners).total() - num_before) / (time.monotonic() - began)


async def _run_phase(
    owners: dict[str, Owner],
    phase: Phase,
    capacities: list[float],
    seed: int,
    put: Callable[[], None],
) -> None:
    """Send the load of a phase; append each capacity that is measured to `capacities`.

    Args:
        put: writes the figures so far, after each tenth of the phase.
    """
    for owner in owners.values():
        owner.counts.clear()
        owner.answered.clear()
    if phase.follows_capacity:
        sending = _follow_capacity(owners, phase, capacities, seed)
    else:
        sending = _send(owners, phase.share_of_capacity * capacities[-1], phase.seconds, seed)
    load = asyncio.create_task(sending)
    put_at = time.monotonic() + phase.seconds / 10
    while not load.done():
        await owners[INTERACTIVE].repeat({"text": 1.0}, 1.0)
        if time.monotonic() > put_at:
            put()
            put_at += phase.seconds / 10
    await load


async def _follow_capacity(
    owners: dict[str, Owner], phase: Phase, capacities: list[float], seed: int
) -> None:
    tenth_s = phase.seconds / 10
    measuring_s = min(MEASURING_S, tenth_s / 4)
    for number in range(10):
        rate_per_s = phase.share_of_capacity * capacities[-1]
        await _send(owners, rate_per_s, tenth_s - measuring_s, seed + number * len(OWNERS))
        capacities.append(await _capacity(owners, measuring_s))


async def _send(owners: dict[str, Owner], rate_per_s: float, duration_s: float, seed: int) -> None:
    await asyncio.gather(
        *(
            owners[name].send(KINDS, rate_per_s / len(OWNERS), duration_s, seed + number)
            for number, name in enumerate(OWNERS)
        )
    )


def _figures(period: Period, owners: dict[str, Owner], memory: Memory) -> dict[str, Any]:
    name, seconds = period.phase.name, period.ended - period.began
    total = _total(owners)
    found: dict[str, Any] = {
        f"{name}_requests_per_s": round(sum(total.values()) / seconds, 1),
        f"{name}_outcomes": dict(sorted(total.items())),
        f"{name}_interactive": dict(owners[INTERACTIVE].counts),
        f"{name}_interactive_by_tenth": [
            _latency(each) for each in tenths(owners[INTERACTIVE].answered, period)
        ],
    }
    # The first third fills caches and allocators; what grows after it may grow without end.
    since = period.began + seconds / 3
    for what in sorted(memory.points):
        growth = memory.growth(what, since, period.ended)
        if growth is not None:
            found[f"{name}_{what}"] = {k: round(v, 2) for k, v in growth._asdict().items()}
            found[f"{name}_{what}_by_tenth"] = memory.largest_by_part(
                what, period.began, period.ended, 10
            )
    return found


def tenths(answered: list[Answered], period: Period) -> list[list[float]]:
    """The latencies in each tenth of a phase, in seconds; a text counts where it was due."""
    found: list[list[float]] = [[] for _ in range(10)]
    for each in answered:
        share = (each.due_at - period.began) / (period.ended - period.began)
        found[min(math.floor(share * 10), 9)].append(each.latency_s)
    return found


def _latency(latencies_s: list[float]) -> dict[str, float | int | None]:
    def in_ms(share: float) -> float | None:
        found = percentile(latencies_s, share)
        return None if found is None else round(found * 1000, 1)

    return {
        "texts": len(latencies_s),
        "p50_ms": in_ms(0.5),
        "p95_ms": in_ms(0.95),
        "max_ms": in_ms(1),
    }


def _total(owners: dict[str, Owner]) -> Counter[str]:
    """Requests of the three owners by kind and outcome."""
    return sum((owners[name].counts for name in OWNERS), Counter())


if __name__ == "__main__":
    main()
