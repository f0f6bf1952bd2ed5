"""Ends jobs in Redis: writes records and counts and acknowledges messages, in one round trip."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from contract import keys
from contract.batches import PartResults
from contract.service_clock import CLOCK
from contract.store.connection.script_runner import ScriptRunner
from contract.store.connection.scripts import register

# The counters of failed jobs, and of failed texts, by the code of their error begin with these.
FAILED_WITH, TEXT_FAILED_WITH = "failed_with:", "text_failed_with:"


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of one job: its final record, or None to acknowledge only its message."""

    task_id: str
    record: bytes | None = None
    counters: str = "jobs_succeeded"
    """Names in the totals, separated by spaces; each rises by 1 as often as it is named here."""
    results: PartResults | None = None
    """The results of a part of a batch that has a final record."""
    stored_result: bytes = b""
    """The result of a job if it is stored apart from the record, compressed."""
    fingerprint: str = ""
    """Of the model that scored it; the ending is dropped if the job is bound to another one now."""

    @property
    def num_bytes(self) -> int:
        """Bytes of the record and the result."""
        lines = self.results.lines if self.results else b""
        return len(self.record or b"") + len(self.stored_result) + len(lines)


class EndingsWriter:
    """Writes the ends of jobs; Redis errors reach the caller."""

    def __init__(self, client: redis.Redis, scripts: ScriptRunner, result_ttl_s: int) -> None:
        self._scripts, self._result_ttl_s = scripts, result_ttl_s
        self._conclude, self._conclude_parts = (
            register(client, name) for name in ("conclude", "conclude_parts")
        )

    def write(self, endings: Sequence[Ending], worker: str | None) -> list[str]:
        """See `JobStore.conclude`; parts of batches take a round trip of their own."""
        acknowledged = [
            keys.unacked(worker) if worker else "",
            keys.unacked_index(worker) if worker else "",
            keys.aboard(worker) if worker else "",
        ]
        plain = [ending for ending in endings if ending.results is None]
        parts = [(ending, ending.results) for ending in endings if ending.results is not None]
        states: dict[str, bytes] = {}
        if plain:
            ids = [ending.task_id for ending in plain]
            states.update(zip(ids, self._write_plain(plain, acknowledged), strict=True))
        if parts:
            ids = [ending.task_id for ending, _ in parts]
            states.update(zip(ids, self._write_parts(parts, acknowledged), strict=True))
        return [states[ending.task_id].decode() for ending in endings]

    def _write_plain(self, endings: Sequence[Ending], acknowledged: list[str]) -> list[bytes]:
        names = [keys.TOTALS, *acknowledged, *keys.LIVE, keys.FORGETTABLE_SINCE, keys.STORED]
        args: list[bytes | str | int] = [self._result_ttl_s]
        for ending in endings:
            of_job = (keys.record, keys.payload, keys.result)
            names += [name(ending.task_id) for name in of_job]
            args += [ending.task_id, ending.record or b"", ending.counters, ending.stored_result]
            args.append(ending.fingerprint)
        return list(self._scripts.run(self._conclude, names, args))

    def _write_parts(
        self, endings: Sequence[tuple[Ending, PartResults]], acknowledged: list[str]
    ) -> list[bytes]:
        names = [keys.LIVE_BATCHES, keys.TOTALS, keys.BATCH_TOTALS, *acknowledged]
        names += [keys.LIVE_LINES, keys.BULK_LOAD, keys.CANCELLING]
        names += [keys.BATCH_CLIENTS, keys.BULK_CLIENTS, *keys.PROMISES]
        names += [keys.FORGETTABLE_SINCE, keys.STORED]
        args: list[Any] = [CLOCK.now(), self._result_ttl_s]
        for ending, results in endings:
            batch_id, first = results.part
            names += [
                keys.record(ending.task_id),
                keys.batch(batch_id),
                keys.batch_texts(batch_id),
                keys.batch_results(batch_id),
                keys.batch_parts(batch_id),
            ]
            args += [ending.task_id, batch_id, first, ending.record or b"", ending.counters]
            args += [results.lines, results.completed, results.failed, results.num_bytes]
            args += [int(results.is_expired), results.model, ending.fingerprint]
        return list(self._scripts.run(self._conclude_parts, names, args))
