"""Runs clients and faults together, checks the history, and reports the result."""

import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import orjson

from tests.faults.chaos.checker import Checker, check_growth, sizes
from tests.faults.chaos.clients import Client, Probe
from tests.faults.chaos.faults import FAULTS, Breaker
from tests.faults.chaos.history import History, Period, Violation
from tests.faults.chaos.monitor import Monitor
from tests.faults.chaos.plan import Plan
from tests.faults.chaos.texts import Offline, texts_of
from tests.faults.chaos.world import WORKERS, World

_OWNERS = ("alice", "bob", "carol")


@dataclass(slots=True)
class Report:
    """The result of a run."""

    plan: Plan
    elapsed_s: float
    num_jobs: int
    """Accepted jobs and batches."""
    num_lines: int
    """Of accepted batches."""
    states: dict[str, int]
    """Final states and errors, and how many jobs ended in them."""
    faults: dict[str, int]
    """By kind."""
    missed: dict[str, int]
    """Faults that could not be made, by kind."""
    num_redelivered: int
    num_refused: int
    """Answers 503 and 429 and lost connections; each request was tried again."""
    recoveries_s: dict[str, tuple[float, float]]
    """By kind of fault: median and longest time until both models answered again."""
    worst_difference: float
    """Largest difference from the scores without the service, in units of the tolerance."""
    left_out: list[str]
    """Kinds of faults that the harness does not make."""
    violations: list[Violation]

    @property
    def is_well(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations


def run(plan: Plan, folder: Path, history: History | None = None) -> Report:
    """Run `plan` with its processes, logs and data in `folder`; `history` is filled meanwhile."""
    history = history or History()
    world = World(folder, history, plan.deadline_s)
    names = [f"client{number}" for number in range(plan.num_clients)]
    for name in (*names, "probe-mine", "probe-theirs", "other"):
        world.texts[name] = texts_of(name, plan.seed)
    began_at = time.monotonic()
    try:
        world.start()
        offline = Offline(text for texts in world.texts.values() for text in texts)
        checker = Checker(world, history, offline)
        for model, checkpoint in world.checkpoints.items():
            checker.fingerprints[model] = offline.add(checkpoint)
        before = sizes(world)
        monitor = Monitor(world.pids, folder / "samples.tsv")
        monitor.start()
        try:
            _load_and_break(world, plan, history, names)
        finally:
            monitor.stop()
        for proxy in world.proxies.values():
            proxy.end_swallowed()
        checker.check()
        check_growth(history, before, sizes(world))
    finally:
        world.stop()
    return _report(plan, time.monotonic() - began_at, history, checker)


def _load_and_break(world: World, plan: Plan, history: History, names: list[str]) -> None:
    """Let clients work while parts are broken, and then finish."""
    clients = [
        Client(world, history, _OWNERS[number % len(_OWNERS)], name, plan)
        for number, name in enumerate(names)
    ]
    clients += [Probe(world, history, model, plan) for model in sorted({*WORKERS.values()})]
    is_over = threading.Event()
    threads = [
        threading.Thread(target=client.run, args=(is_over,), daemon=True) for client in clients
    ]
    for thread in threads:
        thread.start()
    try:
        Breaker(world, plan, history).run()
    finally:
        # The last faults are over: probes see the end of their recovery.
        world.wait_until_ready(plan.patience_s)
        for client in clients:
            client.patience_until = time.monotonic() + plan.patience_s
        is_over.set()
    for thread in threads:
        thread.join()


def _report(plan: Plan, elapsed_s: float, history: History, checker: Checker) -> Report:
    entries = list(history.entries.values())
    kinds = Counter(period.kind for period in history.periods)
    return Report(
        plan=plan,
        elapsed_s=round(elapsed_s, 1),
        num_jobs=len(entries),
        num_lines=sum(len(each.requests) for each in entries if each.kind == "batch"),
        states=dict(sorted(checker.states.items())),
        faults={kind: kinds[kind] for kind in FAULTS if kinds[kind]},
        missed=dict(sorted(history.num_missed.items())),
        num_redelivered=_num_redelivered(checker.folder),
        num_refused=history.num_refused,
        recoveries_s=_recoveries_s(history),
        worst_difference=round(checker.worst_difference, 4),
        left_out=["a jump of the clock of Redis"],
        violations=list(history.violations),
    )


def _recoveries_s(history: History) -> dict[str, tuple[float, float]]:
    """The median and the longest recovery after the faults of each kind."""
    found: dict[str, list[float]] = {}
    for period in history.periods:
        seconds = _recovery_s(history, period)
        if seconds is not None:
            found.setdefault(period.kind, []).append(seconds)
    return {
        kind: (round(median(each), 2), round(max(each), 2)) for kind, each in sorted(found.items())
    }


def _recovery_s(history: History, period: Period) -> float | None:
    """The time from the end of a fault until a later probe of each model was scored."""
    ends: dict[str, float] = {}
    for model, began_at, ended_at in history.probes:
        if began_at >= period.ended_at:
            ends[model] = min(ended_at, ends.get(model, ended_at))
    is_complete = ends.keys() == {*WORKERS.values()}
    return max(ends.values()) - period.ended_at if is_complete else None


def _num_redelivered(folder: Path) -> int:
    """Messages that were put back into the queue, as the logs of the workers say."""
    total = 0
    for path in folder.glob("*.log"):
        for line in path.read_bytes().splitlines():
            if b'"jobs_requeued"' in line:
                total += int(orjson.loads(line)["jobs"])
    return total
