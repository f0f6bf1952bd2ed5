"""Reads worker statuses and current models at most once a second, and derives the text limit."""

import math
import time
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

from contract import keys
from contract.errors import BrokerUnavailable
from contract.settings import Settings
from contract.store.jobs.job_store import JobStore
from contract.worker_status import WorkerStatus

STATUS_MAX_AGE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Read:
    statuses: Sequence[WorkerStatus] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    until: float = 0.0
    """Monotonic time, seconds, after which the workers are asked again."""


class RecentWorkers:
    """The statuses of the workers, up to a second old; an answer never fails because of them."""

    def __init__(self, jobs: JobStore, settings: Settings) -> None:
        self._jobs = jobs
        self._settings = settings
        self._effective: dict[str, Settings] = {}
        self._read = _Read()

    def statuses(self) -> Sequence[WorkerStatus]:
        """The status of every worker; none while Redis does not answer."""
        return self._recent().statuses

    def current_models(self) -> Mapping[str, str]:
        """The current fingerprint of each model's name; none while Redis does not answer."""
        return self._recent().models

    def frozen(self) -> "RecentWorkers":
        """What is known now; it never asks Redis, so any thread may use it."""
        known = copy(self)
        recent = self._recent()
        known._read = _Read(recent.statuses, recent.models, math.inf)
        return known

    def read_now(self) -> None:
        """Read again, however recent the last reading is. Raises: BrokerUnavailable."""
        statuses, models = self._jobs.worker_statuses(), self._jobs.current_models()
        self._read = _Read(statuses, models, time.monotonic() + STATUS_MAX_AGE_S)

    def _recent(self) -> _Read:
        known, now = self._read, time.monotonic()
        if now > known.until:
            # Requests that arrive during this read use the last known state. If there is none yet,
            # they read too.
            if known.until:
                self._read = replace(known, until=now + STATUS_MAX_AGE_S)
            try:
                self.read_now()
            except BrokerUnavailable:
                self._read = _Read(until=time.monotonic() + STATUS_MAX_AGE_S)
        return self._read

    def limits(self, fingerprint: str) -> Settings:
        """The settings, with the longest text that every worker of a model takes.

        For a model that is not known, the longest text that every loaded model takes. While no
        worker has the model, the last one counts: a worker that restarts loads it again.
        """
        known = [
            status.max_text_bytes
            for status in self.statuses()
            if status.max_text_bytes is not None
            and fingerprint in (keys.UNBOUND, status.fingerprint)
        ]
        effective = self._effective.get(fingerprint, self._settings)
        if known:
            smallest = min(self._settings.max_text_bytes, *known)
            if smallest != effective.max_text_bytes:
                effective = self._settings.model_copy(update={"max_text_bytes": smallest})
                self._effective[fingerprint] = effective
        return effective
