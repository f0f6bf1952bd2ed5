"""Checks a history, and what is left in Redis and in the processes, against the promises."""

from collections import Counter
from contextlib import suppress
from datetime import datetime
from typing import Any

import psutil
import pytest
import redis

from contract import keys
from contract.errors import JobEnded
from contract.store.jobs.job_store import JobStore
from tests.conftest import wait_until
from tests.faults.chaos.history import Entry, History
from tests.faults.chaos.texts import Offline
from tests.faults.chaos.world import WORKERS, World
from tests.faults.conftest import contains_marker

# A worker looks at deadlines before it begins a micro-batch, and notes that in Redis first.
_DEADLINE_SLACK_S = 3.0
_QUIET_S = 60
# A kind of fault that cannot be made so often, and never was, is broken itself.
_MOST_MISSED = 4
# Keys without a TTL that stay: settings of the service and counters, a fixed number.
_PERMANENT = frozenset(
    {
        *(keys.TOTALS, keys.BATCH_TOTALS, keys.ID_SECRET, keys.API_KEYS, keys.MODELS),
        *(keys.FINGERPRINTS, keys.WORKERS, keys.FORGETTABLE_SINCE, keys.EXPIRED),
        # While the file is being rewritten.
        keys.REWRITING,
        *(keys.DEAD_LETTERS, keys.DEAD_LETTER_RAWS, keys.LIVE_BYTES, keys.LIVE_PROMISED),
    }
)
_KOMBU = "_kombu.binding"
_GROWTH = {"num_fds": 40, "num_threads": 16, "rss_mib": 500}
"""What a process may have more than when it was fresh. A worker of the tiny model was flat after it
had grown by up to 380 MiB in its first minutes."""


class Checker:
    """Compares what clients saw with what they were promised."""

    def __init__(self, world: World, history: History, offline: Offline) -> None:
        """Check by the scores of `offline`, by fingerprint."""
        self._world, self.history, self._offline = world, history, offline
        self.fingerprints: dict[str, str] = {}
        """Of the model of each name."""
        self.worst_difference = 0.0
        self.states: Counter[str] = Counter()
        self.folder = world.folder

    def check(self) -> None:
        """Check everything; what is broken is in the history's violations."""
        with self._world.redis() as client:
            store = JobStore(client, self._world.settings)
            for entry in list(self.history.entries.values()):
                self.check_entry(entry, store)
            self._check_quiet(client)
            self._check_totals(client)
        for model, text, nats in self.history.completions:
            self._compare("", self.fingerprints[model], text, nats)
        self.check_faults()
        for death in self.history.deaths:
            self._violate("processes end only when killed", "", death)
        self._check_logs()

    def check_faults(self) -> None:
        """Check that every kind of fault can be made."""
        made = {period.kind for period in self.history.periods}
        for kind, num_missed in self.history.num_missed.items():
            if kind not in made and num_missed >= _MOST_MISSED:
                self._violate("the harness works", "", f"{kind} was never made")

    # --- jobs -----------------------------------------------------------------------------

    def check_entry(self, entry: Entry, store: JobStore | None = None) -> None:
        """Check one job or batch; `store` reads what no client has read."""
        if entry.kind == "batch":
            self._check_batch(entry)
            return
        if entry.kind == "unread":
            assert store is not None
            self._check_unread(entry, store)
            return
        job = entry.final
        if job is None:
            if not entry.erase:
                self._violate("every accepted ID ends", entry.task_id, "no final state was read")
            return
        error = job.get("error") or {}
        self.states[f"{job['state']} {error.get('type', '')}".strip()] += 1
        if entry.cancel == "acknowledged" and error.get("type") != "job_cancelled":
            self._violate("cancels hold", entry.task_id, job["state"])
        if job["state"] == "SUCCESS":
            self._check_result(entry, job)
        else:
            self._check_error(entry, job, str(error.get("type")))

    def _check_unread(self, entry: Entry, store: JobStore) -> None:
        if self.history.damaged.get(entry.task_id) == "message":
            # Nobody fetches it, and its deadline is an hour away: the default of the next release.
            with suppress(JobEnded):
                record = store.cancel(entry.task_id)
                self.states[f"{record.state} of the next release"] += 1
                return

        def ended() -> Any:
            record = store.read(entry.task_id)
            return record if record.is_final else None

        record = wait_until(ended, timeout_s=_QUIET_S, every_s=0.2)
        self.states[f"{record.state} of the next release"] += 1
        if record.state != "SUCCESS":
            if not self._is_damaged(entry, (record.error or {}).get("code")):
                self._violate("only what was asked for fails", entry.task_id, record.error)
            return
        result = store.with_result(record).result
        fingerprint = result["model"]["fingerprint"]
        text = entry.requests[0]["text"]
        self._compare(entry.task_id, fingerprint, text, result["log_likelihood_nats"])

    def _check_result(self, entry: Entry, job: dict[str, Any]) -> None:
        result = job["result"]
        self._check_model(entry, result["model"])
        if entry.is_single:
            self._check_score(entry, 0, result)
        elif len(result["items"]) != len(entry.requests):
            self._violate("nothing of another job", entry.task_id, "number of items")
        else:
            for number, item in enumerate(result["items"]):
                found = {**item.get("result", {}), "custom_id": item.get("custom_id")}
                self._check_score(entry, number, found)
        self._check_deadline(entry, job)

    def _check_score(self, entry: Entry, number: int, found: dict[str, Any]) -> None:
        sent = entry.requests[number]
        if found.get("custom_id") != sent["custom_id"]:
            self._violate("nothing of another job", entry.task_id, found.get("custom_id"))
        if found.get("num_bytes") != len(sent["text"].encode()):
            self._violate("nothing of another text", entry.task_id, found.get("num_bytes"))
            return
        fingerprint = self.fingerprints[entry.model]
        self._compare(entry.task_id, fingerprint, sent["text"], found["log_likelihood_nats"])
        scores = found.get("bytes")
        if scores and len(scores["log_prob_nats"]) != found["num_bytes"]:
            self._violate("nothing of another text", entry.task_id, "number of bytes")

    def _check_model(self, entry: Entry, model: dict[str, Any]) -> None:
        named = model["name"], model["fingerprint"]
        if named != (entry.model, self.fingerprints[entry.model]):
            self._violate("nothing of another model", entry.task_id, named)

    def _compare(self, task_id: str, fingerprint: str, text: str, nats: float) -> None:
        difference = self._offline.difference(fingerprint, text, nats)
        self.worst_difference = max(self.worst_difference, difference)
        if difference > 1:
            self._violate("scores are those of the command", task_id, f"{difference:.3g} units")

    def _check_deadline(self, entry: Entry, job: dict[str, Any]) -> None:
        """A job that was scored began before its deadline."""
        submitted_at, deadline_at = _unix(job["submitted_at"]), _unix(job["deadline_at"])
        timings = job["result"]["timings_ms"]
        began_at = submitted_at + (timings["queue"] + timings["batch_wait"]) / 1000
        if began_at > deadline_at + _DEADLINE_SLACK_S:
            late_s = began_at - deadline_at
            self._violate("deadlines are kept", entry.task_id, f"began {late_s:.1f} s late")

    def _is_damaged(self, entry: Entry, code: str | None) -> bool:
        """Whether a fault broke what was stored of a job, and the job ended for that reason."""
        return entry.task_id in self.history.damaged and code == "job_unreadable"

    def _check_error(self, entry: Entry, job: dict[str, Any], code: str) -> None:
        if self._is_damaged(entry, code):
            return
        if code == "job_cancelled" and entry.cancel:
            return
        if code == "job_expired":
            early_s = _unix(job["deadline_at"]) - _unix(job["finished_at"])
            asked_s = _unix(job["deadline_at"]) - _unix(job["submitted_at"])
            wanted_s = self._world.deadline_s if entry.deadline_s is None else entry.deadline_s
            is_own = abs(asked_s - wanted_s) < 0.1
            if is_own and early_s <= 0.1:
                return
            self._violate("no job expires early", entry.task_id, f"{early_s:.1f} s")
            return
        self._violate("only what was asked for fails", entry.task_id, job.get("error"))

    def _check_batch(self, entry: Entry) -> None:
        batch = entry.final
        if batch is None:
            if not entry.erase:
                self._violate("every accepted ID ends", entry.task_id, "no final status was read")
            return
        self.states[f"batch {batch['status']}"] += 1
        counts = batch["request_counts"]
        if counts["completed"] + counts["failed"] != len(entry.requests):
            self._violate("every line ends once", entry.task_id, counts)
        if entry.cancel == "acknowledged" and batch["status"] != "cancelled":
            self._violate("cancels hold", entry.task_id, batch["status"])
        if [each["index"] for each in entry.results] != list(range(len(entry.requests))):
            self._violate("every line ends once", entry.task_id, "indexes")
            return
        for number, line in enumerate(entry.results):
            if line["status"] == "SUCCESS":
                found = {**line["result"], "custom_id": line.get("custom_id")}
                self._check_score(entry, number, found)
            elif not (entry.cancel and line["error"]["type"] == "job_cancelled"):
                self._violate("only what was asked for fails", entry.task_id, line["error"])

    # --- what is left ---------------------------------------------------------------------

    def _check_quiet(self, client: redis.Redis) -> None:
        """Counters return to zero, and no key stays without a time to live."""
        with suppress(pytest.fail.Exception):
            wait_until(lambda: not _left(client), timeout_s=_QUIET_S, every_s=0.5)
        for name, value in _left(client).items():
            self._violate("counters return to zero", "", f"{name}: {value}")
        for raw in client.scan_iter(count=1000):
            name = raw.decode()
            if client.ttl(raw) == -1 and name not in _PERMANENT and not name.startswith(_KOMBU):
                self._violate("keys do not grow", "", name)

    def _check_totals(self, client: redis.Redis) -> None:
        """Redis counted one end for each job and part; of some the clients know nothing."""
        entries = list(self.history.entries.values())
        num_ended, num_unknown = 0, self.history.num_completion_tries
        for entry in entries:
            if entry.kind == "batch":
                num_parts = client.zcard(keys.batch_parts(entry.task_id))
                num_ended += num_parts
                num_unknown += 0 if num_parts else len(entry.requests)
            elif entry.kind == "unread" or entry.final is not None:
                num_ended += 1
            else:
                num_unknown += 1
        names = ("jobs_succeeded", "jobs_failed", "jobs_cancelled", "jobs_expired")
        total = sum(int(found or 0) for found in client.hmget(keys.TOTALS, names))
        if not num_ended <= total <= num_ended + num_unknown:
            detail = f"{total} ends of {num_ended} jobs, and at most {num_unknown} others"
            self._violate("every accepted ID ends once", "", detail)

    def _check_logs(self) -> None:
        for path in self._world.folder.glob("*.log"):
            log = path.read_text(errors="replace")
            if contains_marker(log):
                self._violate("no text is logged", "", path.name)
            for line in log.splitlines():
                if "Traceback" in line or '"turn_failed"' in line:
                    self._violate("no error goes unhandled", "", f"{path.name}: {line}")

    def _violate(self, promise: str, task_id: str, detail: object) -> None:
        self.history.violate(promise, task_id, detail)


def sizes(world: World) -> dict[str, dict[str, int]]:
    """Descriptors, threads and memory of each process."""
    found: dict[str, dict[str, int]] = {}
    for name in ("web", *WORKERS):
        process = world.process(name)
        children = process.children()
        measured = children[0] if name == "web" and children else process
        with suppress(psutil.NoSuchProcess):
            found[name] = {
                "num_fds": measured.num_fds(),
                "num_threads": measured.num_threads(),
                "rss_mib": measured.memory_info().rss >> 20,
            }
    return found


def check_growth(
    history: History, before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]
) -> None:
    """Check that no process has many more descriptors, threads or bytes than a fresh one."""
    for name, found in after.items():
        for what, most in _GROWTH.items():
            grown = found[what] - before.get(name, found)[what]
            if grown > most:
                history.violate("nothing grows", "", f"{name}: {what} by {grown}")


def _left(client: redis.Redis) -> dict[str, str]:
    """What is not zero although no job is left."""
    found: dict[str, str] = {}
    for name in (*keys.LIVE, keys.LIVE_BATCHES, keys.LIVE_LINES, keys.CANCELLING):
        _note(client, name, found)
    for name in (keys.BULK_LOAD, keys.BATCH_CLIENTS, keys.BULK_CLIENTS, keys.BATCH_PROMISED):
        _note(client, name, found)
    for name in (keys.UNPUBLISHED, keys.MISSING, keys.PARKED):
        _note(client, name, found)
    patterns = ("unacked*", "aboard*", "missing_aboard*", "waiting*", "turns*", "deficits*")
    for pattern in patterns:
        for raw in client.scan_iter(f"evascore:{pattern}", count=1000):
            _note(client, raw.decode(), found)
    for priority in keys.PRIORITY_STEPS:
        _note(client, keys.queue_list(priority), found)
    return found


def _note(client: redis.Redis, name: str, found: dict[str, str]) -> None:
    kind = client.type(name).decode()
    value: Any = {
        "none": lambda: None,
        "string": lambda: int(client.get(name) or 0),
        "hash": lambda: {k: v for k, v in client.hgetall(name).items() if v != b"0"},
        "set": lambda: client.smembers(name),
        "list": lambda: client.lrange(name, 0, 5),
        "zset": lambda: client.zrange(name, 0, 5),
    }[kind]()
    if value:
        found[name] = str(value)[:300]


def _unix(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
