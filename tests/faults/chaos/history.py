"""Records what clients sent, what was acknowledged, and what they read: the base of all checks."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import orjson

Asked = Literal["", "asked", "acknowledged"]


class Violation(NamedTuple):
    """A promise that was broken."""

    promise: str
    task_id: str
    detail: str


class Period(NamedTuple):
    """A time in which a fault was at work, in Unix seconds."""

    kind: str
    target: str
    began_at: float
    ended_at: float


@dataclass(slots=True)
class Entry:
    """One accepted job or batch, as its client knows it; one thread writes it."""

    task_id: str
    kind: Literal["job", "batch", "unread"]
    """`unread`: accepted by the next release; only the checker reads it."""
    owner: str
    model: str
    """The name of the model that scores it."""
    asked: str | None
    """The model that its request named; None for the default."""
    requests: list[dict[str, Any]]
    """What was sent for each text, in order."""
    is_single: bool
    submitted_at: float
    """Unix time, seconds, by the clock of the client: before the first try to send it."""
    deadline_s: float | None = None
    idempotency_key: str = ""
    cancel: Asked = ""
    erase: Asked = ""
    final: dict[str, Any] | None = None
    """The job in its final state, as it was first read."""
    results: list[dict[str, Any]] = field(default_factory=list)
    """Of a batch, as they were first read."""


class History:
    """What happened in a run; safe to share between threads."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self.entries: dict[str, Entry] = {}
        self.violations: list[Violation] = []
        self.periods: list[Period] = []
        self.probes: list[tuple[str, float, float]] = []
        """Model, start and end of each probe that was scored."""
        self.damaged: dict[str, str] = {}
        """Task IDs whose message, payload or record a fault broke."""
        self.num_refused = 0
        """Answers 503 and 429 and lost connections; each request was tried again."""
        self.num_missed: dict[str, int] = {}
        """Faults that could not be made, for example because Redis was away."""
        self.deaths: list[str] = []
        """Processes that ended although nobody killed them."""
        self.completions: list[tuple[str, str, float]] = []
        """Model, text and score of each completion."""
        self.num_completion_tries = 0
        """Requests for completions; each may have become a job whose ID nobody knows."""

    def accept(self, entry: Entry) -> Entry:
        """Record that a request was accepted."""
        with self._lock:
            if entry.task_id in self.entries:
                detail = f"{self.entries[entry.task_id].owner} and {entry.owner}"
                self.violations.append(Violation("an ID has one job", entry.task_id, detail))
            self.entries[entry.task_id] = entry
        return entry

    def violate(self, promise: str, task_id: str, detail: object) -> None:
        """Record a broken promise."""
        with self._lock:
            self.violations.append(Violation(promise, task_id, str(detail)[:500]))

    def note(self, period: Period) -> None:
        """Record a fault that has ended."""
        with self._lock:
            self.periods.append(period)

    def miss(self, kind: str) -> None:
        """Count a fault that could not be made."""
        with self._lock:
            self.num_missed[kind] = self.num_missed.get(kind, 0) + 1

    def refuse(self) -> None:
        """Count a request that must be sent again."""
        with self._lock:
            self.num_refused += 1

    def try_completion(self) -> None:
        """Count a request for a completion, a repeated one too."""
        with self._lock:
            self.num_completion_tries += 1

    def of_others(self, owner: str) -> list[str]:
        """Recent task IDs of other owners."""
        with self._lock:
            recent = list(self.entries.values())[-50:]
        return [each.task_id for each in recent if each.owner != owner and each.kind == "job"]

    def see_final(self, entry: Entry, found: dict[str, Any]) -> None:
        """Record a final state; a second one must be equal to the first."""
        if entry.final is None:
            entry.final = found
        elif entry.final != found:
            first, second = orjson.dumps(entry.final)[:300], orjson.dumps(found)[:300]
            self.violate("final states never change", entry.task_id, f"{first!r} -> {second!r}")


def now() -> float:
    """Unix time, seconds."""
    return time.time()
