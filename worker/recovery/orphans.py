"""Takes over the work of models that no worker serves any more.

The workers of the model that is current for a name take over what waits for an earlier model of
that name, and what was accepted before any model was known. A job for one exact model, and a batch
that has scores, cannot be taken over: they end with an error. While a name has no other model, its
work waits for its workers. If the current model itself is gone, the workers of another model of its
name make theirs current again.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import redis

from contract import keys
from contract.errors import JobExpired, ModelGone, ServiceError
from contract.logs import get_logger
from contract.service_clock import CLOCK
from contract.store.jobs.endings import Ending
from contract.store.jobs.job_store import JobStore
from contract.store.queue.leases import read_statuses
from contract.store.queue.waiting_work import Place, Waiting, WaitingWork
from worker.scoring.outcomes import failed_ending, lost_ending

log = get_logger(__name__)

# The event loop of the worker waits for a step, and there is one each second.
_STEP_S = 0.2
# Messages that stay where they are, such as those of another name's model, are read again after
# this time: their deadlines may have passed.
READ_AGAIN_S = 10.0
# A worker that ended is back within this time, also if it needs a new machine first. If its name
# were taken back sooner, its batches that have scores would end.
TAKE_BACK_S = 600.0


@dataclass(frozen=True, slots=True)
class Models:
    """The models as one worker sees them."""

    name: str
    fingerprint: str
    """Of its own model."""
    current: Mapping[str, str]
    """The current fingerprint of each name."""
    served: frozenset[str]
    """Fingerprints that a worker with a lease serves."""

    @property
    def is_current(self) -> bool:
        """Whether the worker's own model is the current one of its name."""
        return self.current.get(self.name) == self.fingerprint


@dataclass(slots=True)
class _Reading:
    """How far the messages of a place were read."""

    began_at: float
    num_left: int = 0
    """Messages from its head on that were read and stay."""
    is_whole: bool = False
    """Whether all of them were read once."""


class Orphans:
    """The waiting jobs whose model is gone, or that are bound to none."""

    def __init__(
        self,
        client: redis.Redis,
        store: JobStore,
        *,
        lease_s: float,
        max_wait_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Count a model as gone once no worker has served it for longer than `lease_s`.

        Args:
            max_wait_s: the longest time that a job or a batch may wait for its model.
        """
        self._client, self._store, self._work = client, store, WaitingWork(client)
        self._lease_s, self._max_wait_s, self._clock = lease_s, max_wait_s, clock
        self._unserved_since: dict[str, float] = {}
        self._readings: dict[Place, _Reading] = {}
        """Of each place, the one read last at the end."""
        self._read_for: Mapping[str, str] = {}
        """The current models when they were read."""

    def take_over(self, name: str, fingerprint: str) -> None:
        """Move what the model of the caller has to score; end what no model may score.

        It ends what has expired in the queue of any model that is gone: nobody else looks there.
        Redis errors reach the caller.
        """
        until = self._clock() + _STEP_S
        models = self._models(name, fingerprint)
        gone = self._gone(models)
        models = self._take_back_name(models)
        places = self._work.places([keys.UNBOUND, *gone])
        self._forget(set(gone) - {place.fingerprint for place in places}, models)
        for place in self._in_turn(places, models):
            self._read(place, models, until)

    def _in_turn(self, places: Sequence[Place], models: Models) -> list[Place]:
        """Return the places, those that were not read for the longest time first."""
        if self._read_for != models.current:
            self._readings, self._read_for = {}, models.current
        known = set(places)
        self._readings = {each: read for each, read in self._readings.items() if each in known}
        return [*(each for each in places if each not in self._readings), *self._readings]

    def _read(self, place: Place, models: Models, until: float) -> None:
        """Decide about the messages of a place, from where the last step stopped."""
        now = self._clock()
        if now >= until:
            return
        reading = self._readings.pop(place, None)
        if reading is None or (reading.is_whole and now - reading.began_at >= READ_AGAIN_S):
            reading = _Reading(now)
        self._readings[place] = reading
        while found := self._work.oldest(place, reading.num_left):
            reading.num_left += self._settle(found, models)
            if self._clock() >= until:
                return
        reading.is_whole = True

    def _models(self, name: str, fingerprint: str) -> Models:
        statuses = read_statuses(self._client)
        loaded = {status.fingerprint for status in statuses if status.fingerprint}
        served = frozenset({fingerprint, *loaded})
        return Models(name, fingerprint, self._store.models.current(), served)

    def _gone(self, models: Models) -> list[str]:
        unserved = self._store.models.fingerprints() - models.served
        now = self._clock()
        self._unserved_since = {each: self._unserved_since.get(each, now) for each in unserved}
        return [each for each, since in self._unserved_since.items() if now - since > self._lease_s]

    def _take_back_name(self, models: Models) -> Models:
        """Make the own model current where the current one of its name is gone for long."""
        gone = models.current.get(models.name, models.fingerprint)
        now = self._clock()
        if now - self._unserved_since.get(gone, now) <= max(TAKE_BACK_S, self._lease_s):
            return models
        if not self._store.models.replace(models.name, gone, models.fingerprint):
            return models
        log.warning("name_taken_back", fingerprint=models.fingerprint, from_fingerprint=gone)
        return replace(models, current={**models.current, models.name: models.fingerprint})

    def _forget(self, empty: Iterable[str], models: Models) -> None:
        """Forget models that are gone for longer than a job or a batch may wait for them."""
        now = self._clock()
        for fingerprint in set(empty) - set(models.current.values()):
            # Twice, because the last job may have come just before the last worker left.
            if now - self._unserved_since[fingerprint] > 2 * self._max_wait_s:
                self._store.models.forget(fingerprint)

    def _settle(self, found: Sequence[Waiting], models: Models) -> int:
        """Decide about messages of one list; return how many stay in it."""
        targets = [(waiting, target(waiting, models, CLOCK.now())) for waiting in found]
        over = [waiting for waiting, decided in targets if decided is OVER]
        for fingerprint in {decided for _, decided in targets if isinstance(decided, str)}:
            moved = [waiting for waiting, decided in targets if decided == fingerprint]
            over += self._move(moved, models, fingerprint)
        for waiting, decided in targets:
            if isinstance(decided, ServiceError):
                self._end(waiting, decided)
                over.append(waiting)
        # A record that expired ends no job: what the counts still hold of it is taken off here.
        self._store.conclude([Ending(each.task_id) for each in over if each.task_id])
        self._work.take_out(over)
        return sum(decided is None for _, decided in targets)

    def _move(
        self, moved: Sequence[Waiting], models: Models, fingerprint: str
    ) -> Iterable[Waiting]:
        """Move messages; return those that ended because their batch has scores."""
        ended = []
        have_scores = self._work.move(moved, models.name, fingerprint)
        for waiting, has_scores in zip(moved, have_scores, strict=True):
            if has_scores:
                self._end(waiting, _gone_from_batch())
                ended.append(waiting)
        if len(moved) > len(ended):
            source = moved[0].place.fingerprint
            count = len(moved) - len(ended)
            log.info("jobs_moved", jobs=count, fingerprint=fingerprint, from_fingerprint=source)
        return ended

    def _end(self, waiting: Waiting, error: ServiceError) -> None:
        job = self._work.job_of(waiting)
        if job is None:
            facts = self._store.facts(waiting.task_id)
            ending = lost_ending(waiting.task_id, facts, error)
        else:
            ending = failed_ending(waiting.task_id, job, error)
        self._store.conclude([ending])
        log.warning("job_of_gone_model_ended", task_id=waiting.task_id, code=error.code)


class _Over:
    """The decision that a message has no job any more."""


OVER = _Over()


def target(waiting: Waiting, models: Models, now: float) -> str | ServiceError | _Over | None:
    """Decide about a message that is in the queue of a gone model, or of none.

    Returns:
        The fingerprint of the model whose queue it belongs to, the error that its job ends with,
        `OVER` if its job has ended, or None to leave it.
    """
    if waiting.state == "over":
        return OVER
    if waiting.state == "unreadable":
        # The worker that fetches it sets it aside.
        return models.fingerprint
    if waiting.deadline_at < now:
        return JobExpired("No worker served the model before the deadline of the job passed.")
    if waiting.fingerprint not in (keys.UNBOUND, waiting.place.fingerprint):
        # It was put back without its model, such as a message of release 0.1.
        return waiting.fingerprint
    if not models.is_current or waiting.model not in ("", models.name):
        return None
    return _gone_for_good() if waiting.is_pinned else models.fingerprint


def _gone_for_good() -> ModelGone:
    return ModelGone(
        "The job asked for one exact model, and no worker serves it any more; send it again with "
        "another model."
    )


def _gone_from_batch() -> ModelGone:
    return ModelGone(
        "The model that scored the other lines of this batch is no longer served; send the lines "
        "without a score as a new batch."
    )
