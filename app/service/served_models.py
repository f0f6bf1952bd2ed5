"""Says which models are served, and binds each job to one of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from app.service.recent_workers import RecentWorkers
from app.service.workers import no_worker_ready
from contract import keys
from contract.errors import ModelNotFound
from contract.grammar.model_names import ModelReference, read_reference
from contract.messages import Job
from contract.service_clock import CLOCK
from contract.settings import Settings
from contract.worker_status import WorkerStatus

# Asks for the default model, in clients that must name one.
ALIAS = "evascore"


class Target(NamedTuple):
    """The model that a request gets."""

    name: str
    """'' for whichever model is ready first, while none is known."""
    fingerprint: str
    is_pinned: bool = False


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that warm workers serve."""

    reference: ModelReference
    """What a request calls it; with the fingerprint where the name means another model by now."""
    num_workers: int
    since: float
    """Unix time at which the oldest of these workers started, seconds; 0 if unknown."""
    facts: Mapping[str, Any]
    """What the workers say of it."""


class ServedModels:
    """The models of all workers; up to a second old, except where that would refuse a request."""

    def __init__(self, workers: RecentWorkers, default_name: str) -> None:
        """Give requests without a model the one of `default_name`, if it is known."""
        self._workers = workers
        self._default_name = default_name

    def frozen(self) -> "ServedModels":
        """The models as they are known now; it never asks Redis, so any thread may use it."""
        return ServedModels(self._workers.frozen(), self._default_name)

    def listed(self) -> list[ServedModel]:
        """The models that warm workers serve, by name; those that are current come first."""
        by_model: dict[tuple[str, str], list[WorkerStatus]] = {}
        for status in self._workers.statuses():
            if status.is_warm and status.model_name:
                model = status.model_name, status.fingerprint or ""
                by_model.setdefault(model, []).append(status)
        listed = [self._served(*model, found) for model, found in by_model.items()]
        return sorted(listed, key=lambda each: each.reference)

    def names(self) -> list[str]:
        """What requests can ask for: the alias of the default model, and all served models."""
        return [ALIAS, *(str(each.reference) for each in self.listed())]

    def default(self) -> ServedModel | None:
        """The model of requests without one; None if no worker serves it."""
        target = self._default_target()
        for each in self.listed():
            if target.fingerprint in (keys.UNBOUND, each.facts.get("fingerprint")):
                return each
        return None

    def target(self, asked: str) -> Target:
        """The model of a request that asks for `asked`, '' for the default.

        Raises:
            ModelNotFound: it is not served.
            BrokerUnavailable: Redis does not answer, and was not asked before.
        """
        found = self._find(asked)
        if found is None or found.fingerprint == keys.UNBOUND:
            # A worker may have become ready within the last second.
            self._workers.read_now()
            found = self._find(asked)
        if found is None:
            raise self._not_found()
        return found

    def bound(self, job: Job) -> Job:
        """`job`, bound to the model that it asks for. Raises: as `target`."""
        name, fingerprint, is_pinned = self.target(job.model)
        return replace(job, model=name, fingerprint=fingerprint, is_pinned=is_pinned)

    def limits(self, asked: object = "") -> Settings:
        """The settings, with the longest text that the model `asked` takes.

        For a model that is not served, which `bound` refuses, the limits are those of the default.
        """
        found = self._find(asked) if isinstance(asked, str) else None
        return self._workers.limits((found or self._default_target()).fingerprint)

    def check_ready(self, asked: str) -> None:
        """Check that a text for the model `asked` would be scored now.

        Raises:
            WorkerUnavailable: no worker of this model is ready.
            ModelNotFound, BrokerUnavailable
        """
        fingerprint = self.target(asked).fingerprint
        if self._is_ready(fingerprint):
            return
        self._workers.read_now()
        if not self._is_ready(fingerprint):
            raise no_worker_ready(self._workers.statuses(), CLOCK.now())

    def _is_ready(self, fingerprint: str) -> bool:
        return any(
            status.is_warm and fingerprint in (keys.UNBOUND, status.fingerprint)
            for status in self._workers.statuses()
        )

    def _find(self, asked: str) -> Target | None:
        reference = read_reference(asked)
        current = self._workers.current_models()
        if not asked or (asked == ALIAS and ALIAS not in current):
            return self._default_target()
        return reference and self._target(reference)

    def _target(self, reference: ModelReference) -> Target | None:
        current = self._workers.current_models()
        name, fingerprint = reference
        if fingerprint:
            is_known = current.get(name) == fingerprint or reference in self._loaded()
            return Target(name, fingerprint, is_pinned=True) if is_known else None
        if name in current:
            return Target(name, current[name])
        # Workers of this service serve it once they are ready, or one of release 0.1 does now.
        named = {self._default_name, *(status.model_name for status in self._workers.statuses())}
        return Target(name, keys.UNBOUND) if name in named else None

    def _default_target(self) -> Target:
        current = self._workers.current_models()
        if self._default_name in current:
            return Target(self._default_name, current[self._default_name])
        served = {name for name, _ in self._loaded()} & current.keys()
        if len(served) == 1:
            (name,) = served
            return Target(name, current[name])
        return Target("", keys.UNBOUND)

    def _loaded(self) -> set[ModelReference]:
        """The models of all workers that have one, warm or not."""
        return {
            ModelReference(status.model_name, status.fingerprint)
            for status in self._workers.statuses()
            if status.model_name and status.fingerprint
        }

    def _served(self, name: str, fingerprint: str, workers: list[WorkerStatus]) -> ServedModel:
        is_current = self._workers.current_models().get(name, fingerprint) == fingerprint
        started = [status.started_at for status in workers if status.started_at is not None]
        return ServedModel(
            reference=ModelReference(name, "" if is_current else fingerprint),
            num_workers=len(workers),
            since=min(started, default=0.0),
            facts=workers[0].model or {},
        )

    def _not_found(self) -> ModelNotFound:
        # The name that was asked for is not repeated: it may be anything.
        served = [str(each.reference) for each in self.listed()]
        served_names = f"served are {', '.join(served)}" if served else "no worker is ready"
        return ModelNotFound(f"No worker serves this model; {served_names}.", served=served)
