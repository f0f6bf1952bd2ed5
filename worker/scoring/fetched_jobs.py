"""Opens fetched jobs: gives those that are to be scored, and the ends of the others."""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from contract.batches import part_id
from contract.errors import JobLost, PoisonJob, ServiceError
from contract.grammar.counts import counted
from contract.logs import get_logger
from contract.messages import Job, encode_payload, job_cancelled
from contract.store.connection.refusals import OF_ALL_WRITES, NotStored, Reason
from contract.store.jobs.endings import Ending
from contract.store.jobs.opening import Broken, Opened
from model import ModelInfo
from worker.process.suspects import Crashes
from worker.scheduling.batching import choose_to_open
from worker.scheduling.filling import OpenJob
from worker.scoring.outbox import MAX_TRIES
from worker.scoring.outcomes import (
    ScoreJob,
    failed_ending,
    job_expired,
    lost_ending,
    open_job,
    unreadable_ending,
)
from worker.scoring.protocols import Messages, Store

log = get_logger(__name__)

# Jobs that Redis did not open are opened again after this time.
OPEN_AGAIN_S = 1.0


class FetchedJobs:
    """The jobs that a worker has fetched and not opened yet."""

    def __init__(
        self, store: Store, messages: Messages, worker: str, model: ModelInfo, *, max_crashes: int
    ) -> None:
        """Start without jobs.

        Args:
            worker: its name; the jobs that it opens are its suspects.
            model: that of the worker.
            max_crashes: so many dead workers make a job fail as `poison_job`.
        """
        self._store, self._messages = store, messages
        self._worker, self._model, self._max_crashes = worker, model, max_crashes
        self._task_ids: list[str] = []
        self._may_open_at = 0.0
        self._num_tries: dict[str, int] = {}
        self.refused_since: float | None = None
        """Since when Redis refuses to open jobs, by the monotonic clock; None if it does not."""
        self.suspects: set[str] | None = None
        """The jobs that Redis has as suspects of this worker; None if that is not known."""

    def __bool__(self) -> bool:
        """Whether there are such jobs."""
        return bool(self._task_ids)

    @property
    def has_trusted(self) -> bool:
        """Whether there is one that is no suspect of a crash."""
        return any(not self._messages.crashes(each).deaths for each in self._task_ids)

    @property
    def delay_s(self) -> float:
        """Time until jobs may be opened."""
        return max(self._may_open_at - time.monotonic(), 0.0)

    def add(self, task_id: str) -> None:
        """Take a job that was fetched."""
        self._task_ids.append(task_id)

    def open(
        self, in_hand: Collection[OpenJob], max_slice_bytes: int
    ) -> Iterator[ScoreJob | Ending]:
        """Open jobs; yield each that is to be scored, and the end of each other one.

        Args:
            in_hand: open jobs that are not done; suspects among them keep others unopened.
            max_slice_bytes: a longer request is cut into slices.
        """
        if self.delay_s:
            return
        # A second copy of a message that is in the same fetch is dropped here.
        crashes = {task_id: self._messages.crashes(task_id) for task_id in self._task_ids}
        for task_id in [task_id for task_id in crashes if self._is_hopeless(task_id)]:
            # Not opened: opening it may be what kills workers.
            error = _poisonous(crashes.pop(task_id).deaths)
            yield lost_ending(task_id, self._store.facts(task_id), error)
        deaths = {task_id: found.deaths for task_id, found in crashes.items()}
        # Redis may go away meanwhile; then all of them come again.
        self._task_ids = list(crashes)
        for chosen in choose_to_open(deaths, in_hand):
            found, refused = self._open(chosen)
            since = self.refused_since or time.monotonic()
            self.refused_since = since if refused else None
            done = set(chosen) - set(refused)
            self._task_ids = [task_id for task_id in self._task_ids if task_id not in done]
            for opened in found:
                taken = self._taken(opened, crashes[opened.task_id], max_slice_bytes)
                if taken is not None:
                    yield taken
            if refused:
                return

    def give_up(self, task_id: str) -> None:
        """Delete a job that Redis lets nobody open or end, and keep a dead letter of it."""
        self._num_tries.pop(task_id, None)
        self._store.set_aside("record", "write_refused", task_id=task_id, num_bytes=0, raw=b"")
        self._store.give_up(task_id, self._worker)

    def _open(self, task_ids: Sequence[str]) -> tuple[list[Opened], list[str]]:
        """Open jobs together; where Redis refuses that, one by one.

        Returns:
            What was opened, and the jobs to be opened later. A job that Redis refuses again and
            again for a reason of its own is given up.
        """
        self.suspects = None
        try:
            found = self._store.open_jobs(task_ids, self._worker, self._model.fingerprint)
        except NotStored as refusal:
            if len(task_ids) == 1 or refusal.reason in OF_ALL_WRITES:
                return [], self._not_opened(task_ids, refusal.reason)
            several = [self._open([task_id]) for task_id in task_ids]
            return (
                [opened for found, _ in several for opened in found],
                [task_id for _, refused in several for task_id in refused],
            )
        self.suspects = set(task_ids)
        return found, []

    def _not_opened(self, task_ids: Sequence[str], reason: Reason) -> list[str]:
        """Note that Redis did not open jobs; return those to be opened later."""
        log.warning("jobs_not_opened", reason=reason, jobs=len(task_ids))
        self._may_open_at = time.monotonic() + OPEN_AGAIN_S
        if reason in OF_ALL_WRITES:
            return list(task_ids)
        (task_id,) = task_ids
        self._num_tries[task_id] = self._num_tries.get(task_id, 0) + 1
        if self._num_tries[task_id] < MAX_TRIES:
            return [task_id]
        self.give_up(task_id)
        self._messages.acknowledge(task_id, is_success=False)
        return []

    def _is_hopeless(self, task_id: str) -> bool:
        """Whether to end a job unopened. A part is opened once more, for its custom_ids."""
        max_crashes = self._max_crashes + (part_id(task_id) is not None)
        return self._messages.crashes(task_id).are_too_many(max_crashes)

    def _taken(
        self, opened: Opened, crashes: Crashes, max_slice_bytes: int
    ) -> ScoreJob | Ending | None:
        """Return a job that is to be scored, or its end; None if another worker looks after it."""
        task_id, job = opened.task_id, opened.job
        if opened.newer_major is not None:
            self._store.park(task_id, opened.newer_major, self._worker)
            self._messages.acknowledge(task_id, is_success=False)
            return None
        if opened.elsewhere is not None:
            self._store.pass_on(task_id, opened.elsewhere, self._worker)
            self._messages.acknowledge(task_id, is_success=False)
            return None
        if opened.broken is not None:
            return self._set_aside(task_id, opened.broken)
        if opened.lost_facts is not None:
            lost = JobLost("The text of the job is no longer stored; send it again.")
            return lost_ending(task_id, opened.lost_facts, lost)
        if job is None:
            return Ending(task_id)
        error = self._error_before_scoring(task_id, job, crashes)
        if error is not None:
            return failed_ending(task_id, job, error)
        return self._score_job(task_id, job, crashes, max_slice_bytes)

    def _error_before_scoring(
        self, task_id: str, job: Job, crashes: Crashes
    ) -> ServiceError | None:
        if self._messages.is_revoked(task_id):
            return job_cancelled()
        if self._store.has_passed(job.deadline_at):
            return job_expired()
        if crashes.are_too_many(self._max_crashes):
            return _poisonous(crashes.deaths)
        return None

    def _score_job(
        self, task_id: str, job: Job, crashes: Crashes, max_slice_bytes: int
    ) -> ScoreJob | Ending:
        """Cut a job into slices; set it aside if its requests have another form."""
        # The payload has the model of the acceptance; what moved since then is of the same name.
        model = self._model
        job = replace(job, model=job.model or model.name, fingerprint=model.fingerprint)
        try:
            score_job = open_job(
                task_id,
                job,
                num_crashes=crashes.deaths,
                max_slice_bytes=max_slice_bytes,
                max_text_bytes=model.max_text_bytes,
                window_size=model.window_size,
            )
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # A request of a form that no release writes. Other errors are bugs and end the worker.
            log.error("request_malformed", task_id=task_id, error=type(error).__name__)
            payload = encode_payload(job)
            malformed = Broken("payload", "malformed_request", len(payload), payload)
            return self._set_aside(task_id, malformed)
        log.info(
            "job_opened",
            task_id=task_id,
            request_id=job.request_id,
            client=job.client,
            bytes=job.num_bytes,
        )
        score_job.is_express = self._messages.is_express(task_id)
        return score_job

    def _set_aside(self, task_id: str, broken: Broken) -> Ending:
        self._store.set_aside(
            broken.kind,
            broken.reason,
            task_id=task_id,
            num_bytes=broken.num_bytes,
            raw=broken.payload,
        )
        return unreadable_ending(task_id, self._store.facts(task_id))


def _poisonous(num_crashes: int) -> ServiceError:
    return PoisonJob(
        f"{counted(num_crashes, 'worker')} died while scoring this job, so it is not tried again; "
        "send its texts one by one to find the one at fault.",
        num_crashes=num_crashes,
    )
