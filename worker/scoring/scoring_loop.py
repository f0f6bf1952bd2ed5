"""Runs the scoring loop: open fetched jobs, drop unwanted ones, choose, score, conclude.

Whatever waits in Redis when the worker is free is fetched up to a budget. While a micro-batch runs
the backlog forms in Redis, and the next fetch takes from all of it. Where that is little, the
worker may wait some milliseconds for the next texts of those who have just got results.

Knows nothing of Celery and Redis: what it needs of them are the protocols `Store` and `Messages`.
`worker/queue/micro_batch.py` calls `turn` from Celery's event loop.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol

from contract import keys
from contract.batches import part_id
from contract.errors import JobLost, PoisonJob, ServiceError
from contract.grammar.counts import counted
from contract.logs import get_logger
from contract.messages import encode_payload, job_cancelled
from contract.service_clock import CLOCK
from contract.store.connection.refusals import OF_ALL_WRITES, NotStored, Reason
from contract.store.jobs.endings import Ending
from contract.store.jobs.opening import Broken, Opened
from contract.store.queue.dead_letters import Kind
from contract.worker_status import Stage
from worker.process.own_status import OwnStatus
from worker.process.suspects import Crashes
from worker.scheduling.batching import Choice, Credit, choose_micro_batch, choose_to_open
from worker.scheduling.batching_delay import BatchingDelay
from worker.scheduling.filling import Budget, Outcome
from worker.scheduling.pace import Pace
from worker.scheduling.room import Room, no_room, room_for_fetch
from worker.scoring.micro_batch_scorer import MicroBatchScorer
from worker.scoring.outbox import MAX_TRIES, Outbox
from worker.scoring.outcomes import (
    ScoreJob,
    failed_ending,
    job_expired,
    lost_ending,
    open_job,
    scored_ending,
    unreadable_ending,
)
from worker.scoring.spans import JobSpans

log = get_logger(__name__)

# Jobs that Redis did not open are opened again after this time.
OPEN_AGAIN_S = 1.0


class Store(Protocol):
    """What the loop needs of `JobStore`."""

    def open_jobs(self, task_ids: Sequence[str], worker: str, fingerprint: str) -> list[Opened]:
        """Read jobs and mark them as started; they are the suspects should the worker die.

        Raises:
            NotStored: Redis does not take the marks.
        """

    def facts(self, task_id: str) -> dict[str, Any]:
        """Return what is known of a job without its payload."""

    def set_aside(
        self, kind: Kind, reason: str, *, task_id: str, num_bytes: int, raw: bytes
    ) -> None:
        """Keep what cannot be read as a dead letter."""

    def park(self, task_id: str, major: int, worker: str) -> None:
        """Have a job wait for a worker of a newer release."""

    def pass_on(self, task_id: str, fingerprint: str, worker: str) -> None:
        """Put the message of a job into the queue of the model that it is bound to."""

    def are_wanted(self, task_ids: Sequence[str]) -> list[bool]:
        """Tell which jobs were not cancelled or erased."""

    def has_passed(self, moment: float) -> bool:
        """Whether a moment in Unix seconds has passed by the clock of Redis."""

    def note_aboard(self, task_ids: Iterable[str], worker: str) -> None:
        """Note whose jobs are suspects should the worker die."""

    def give_up(self, task_id: str, worker: str) -> None:
        """Delete a job that cannot be opened or ended, and its message."""


class Messages(Protocol):
    """What the loop needs of Celery: the messages of the jobs in hand."""

    def is_revoked(self, task_id: str) -> bool:
        """Tell whether the task was revoked through Celery."""

    def is_express(self, task_id: str) -> bool:
        """Tell whether the job goes first: its client had no other live job, or it was put back."""

    def crashes(self, task_id: str) -> Crashes:
        """Return how many workers died while they scored the job."""

    def acknowledge(self, task_id: str, *, is_success: bool) -> None:
        """Drop the message of a job that has ended."""


class ScoringLoop:
    """The jobs in this worker's hands, and the turn that scores one micro-batch of them."""

    def __init__(
        self,
        store: Store,
        messages: Messages,
        outbox: Outbox,
        scorer: MicroBatchScorer,
        status: OwnStatus,
        *,
        budget: Budget,
        pace: Pace,
        max_crashes: int,
        spans: JobSpans | None = None,
    ) -> None:
        """Start without jobs; `max_crashes` dead workers make a job fail as `poison_job`."""
        self._spans = spans or JobSpans()
        self._store, self._messages, self._outbox = store, messages, outbox
        self._scorer, self._status = scorer, status
        self._budget, self._pace, self._max_crashes = budget, pace, max_crashes
        self._credit, self._batching_delay = Credit(), BatchingDelay()
        self._num_micro_batches = 0
        self._fetched: list[str] = []
        self._may_open_at = 0.0
        self._not_opened_since: float | None = None
        self._open_tries: dict[str, int] = {}
        self._jobs: dict[str, ScoreJob] = {}
        self._scored: dict[str, _Scored] = {}
        self._suspects: set[str] | None = None
        """The jobs that Redis has as suspects of this worker; None if that is not known."""

    @property
    def delay_s(self) -> float | None:
        """Time until the next turn has something to do; None without a job in hand.

        It is 0 while jobs wait for their next micro-batch, or to be opened. An ending that Redis
        refused, and jobs that it did not open, wait for some time.
        """
        if self._jobs and not self._is_held_up:
            return 0.0
        delays_s = [self._outbox.delay_s] if self._outbox else []
        if self._fetched and not self._is_held_up:
            delays_s.append(max(self._may_open_at - time.monotonic(), 0.0))
        return min((each for each in delays_s if each is not None), default=None)

    @property
    def _is_held_up(self) -> bool:
        """Whether so many results wait to be stored that there is no memory for more."""
        return self._outbox.num_bytes > self._budget.result_bytes

    @property
    def opens_after(self) -> float | None:
        """A job that comes alone is scored at once if it was submitted after this Unix time.

        None if it may have to wait for jobs in hand, or for further ones.
        """
        return self._batching_delay.opens_after if self.delay_s is None else None

    @property
    def batching_delay_s(self) -> float:
        """How long the next turn should wait for further texts to be fetched."""
        return self._batching_delay.left_s(self._pace.limit(self._budget))

    def add(self, task_id: str, num_bytes: int, submitted_at: float) -> None:
        """Take a fetched job, which a later turn opens.

        Args:
            num_bytes: what the model reads for it.
            submitted_at: Unix time, seconds; 0.0 if that is not known.
        """
        self._fetched.append(task_id)
        self._batching_delay.add(num_bytes, submitted_at)

    def room(self) -> dict[int, Room]:
        """Return how much the next fetch may bring of each priority.

        It brings nothing while a job is unopened, except for suspects, which wait for one another,
        and for jobs that wait for further ones.
        """
        is_any_unopened = any(not self._messages.crashes(each).deaths for each in self._fetched)
        if self._is_held_up or (is_any_unopened and not self._batching_delay.num_expected):
            return no_room(self._budget)
        # Not by the pace: a part of a batch has as many bytes as the whole budget.
        rooms = room_for_fetch(self._jobs.values(), self._budget)
        if not is_any_unopened:
            return rooms
        waiting = self._batching_delay.num_jobs, self._batching_delay.num_bytes
        return {priority: room.beside(*waiting) for priority, room in rooms.items()}

    def turn(self) -> None:
        """Bring the jobs in hand on by one micro-batch."""
        for ending in [*self._open_fetched(), *self._unwanted()]:
            self._end(ending)
        self._write_endings()
        if self._is_held_up:
            return
        budget = self._pace.limit(self._budget)
        began = time.monotonic()
        choice = choose_micro_batch(self._jobs.values(), budget, self._credit)
        self._credit = choice.credit
        if choice.shares:
            self._num_micro_batches += 1
            self._note_suspects([share.job.task_id for share in choice.shares])
            with self._spans.micro_batch(choice), self._pace.measured(choice.num_bytes, budget):
                outcomes = self._scorer.score(choice, on_out_of_memory=self._halve_budget)
            _distribute(choice, outcomes, self._num_micro_batches)
        ended_at = CLOCK.now()
        self._end_done()
        self._begin_batching_delay(choice, ended_at, time.monotonic() - began)

    def _begin_batching_delay(self, choice: Choice, ended_at: float, elapsed_s: float) -> None:
        """Let the worker wait for the next texts of those whose results are stored now."""
        is_busy = bool(self._jobs or self._fetched or self._outbox)
        # The next part of a batch is in the queue already.
        ended = [share for share in choice.shares if part_id(share.job.task_id) is None]
        self._batching_delay.begin(0 if is_busy else len(ended), ended_at, elapsed_s)

    def _note_suspects(self, task_ids: list[str]) -> None:
        """Store these jobs as suspects, unless opening them already did."""
        if self._suspects != set(task_ids):
            self._store.note_aboard(task_ids, self._status.name)
        # Not known for the next micro-batch: a worker that takes over may set them aside meanwhile.
        self._suspects = None

    def _open_fetched(self) -> Iterator[Ending]:
        """Open the jobs that were fetched; yield the ends of those that are not to be scored."""
        if time.monotonic() < self._may_open_at or self._is_held_up:
            return
        # A second copy of a message that is in the same fetch is dropped here.
        crashes = {task_id: self._messages.crashes(task_id) for task_id in self._fetched}
        for task_id in [task_id for task_id in crashes if self._is_hopeless(task_id)]:
            # Not opened: opening it may be what kills workers.
            error = _poisonous(crashes.pop(task_id).deaths)
            yield lost_ending(task_id, self._store.facts(task_id), error)
        deaths = {task_id: found.deaths for task_id, found in crashes.items()}
        # Redis may go away meanwhile; then all of them come again.
        self._fetched = list(crashes)
        for chosen in choose_to_open(deaths, self._jobs.values()):
            found, refused = self._open(chosen)
            since = self._not_opened_since or time.monotonic()
            self._not_opened_since = since if refused else None
            done = set(chosen) - set(refused)
            self._fetched = [task_id for task_id in self._fetched if task_id not in done]
            for opened in found:
                ending = self._opened(opened, crashes[opened.task_id])
                if ending is not None:
                    yield ending
            if refused:
                return

    def _open(self, task_ids: Sequence[str]) -> tuple[list[Opened], list[str]]:
        """Open jobs together; where Redis refuses that, one by one.

        Returns:
            What was opened, and the jobs to be opened later. A job that Redis refuses again and
            again for a reason of its own is given up.
        """
        own = self._status.name, self._scorer.info.fingerprint
        self._suspects = None
        try:
            found = self._store.open_jobs(task_ids, *own)
        except NotStored as refusal:
            if len(task_ids) == 1 or refusal.reason in OF_ALL_WRITES:
                return [], self._not_opened(task_ids, refusal.reason)
            several = [self._open([task_id]) for task_id in task_ids]
            return (
                [opened for found, _ in several for opened in found],
                [task_id for _, refused in several for task_id in refused],
            )
        self._suspects = set(task_ids)
        return found, []

    def _not_opened(self, task_ids: Sequence[str], reason: Reason) -> list[str]:
        """Note that Redis did not open jobs; return those to be opened later."""
        log.warning("jobs_not_opened", reason=reason, jobs=len(task_ids))
        self._may_open_at = time.monotonic() + OPEN_AGAIN_S
        if reason in OF_ALL_WRITES:
            return list(task_ids)
        (task_id,) = task_ids
        self._open_tries[task_id] = self._open_tries.get(task_id, 0) + 1
        if self._open_tries[task_id] < MAX_TRIES:
            return [task_id]
        self._give_up(task_id)
        self._messages.acknowledge(task_id, is_success=False)
        return []

    def _give_up(self, task_id: str) -> None:
        """Delete a job that Redis lets nobody open or end, and keep a dead letter of it."""
        self._open_tries.pop(task_id, None)
        self._store.set_aside("record", "write_refused", task_id=task_id, num_bytes=0, raw=b"")
        self._store.give_up(task_id, self._status.name)

    def _is_hopeless(self, task_id: str) -> bool:
        """Whether to end a job unopened. A part is opened once more, for its custom_ids."""
        max_crashes = self._max_crashes + (part_id(task_id) is not None)
        return self._messages.crashes(task_id).are_too_many(max_crashes)

    def _opened(self, opened: Opened, crashes: Crashes) -> Ending | None:
        """Take an opened job into hand, or return its end."""
        task_id, job = opened.task_id, opened.job
        if opened.newer_major is not None:
            self._store.park(task_id, opened.newer_major, self._status.name)
            self._messages.acknowledge(task_id, is_success=False)
            return None
        if opened.elsewhere is not None:
            self._store.pass_on(task_id, opened.elsewhere, self._status.name)
            self._messages.acknowledge(task_id, is_success=False)
            return None
        if opened.broken is not None:
            return self._set_aside(task_id, opened.broken)
        ending = self._ending_before_scoring(opened, crashes)
        if ending is not None or job is None:
            return ending
        # The payload has the model of the acceptance; what moved since then is of the same name.
        info = self._scorer.info
        job = replace(job, model=job.model or info.name, fingerprint=info.fingerprint)
        try:
            opened_job = open_job(
                task_id,
                job,
                num_crashes=crashes.deaths,
                max_slice_bytes=self._pace.limit(self._budget).bytes,
                max_text_bytes=self._scorer.info.max_text_bytes,
                window_size=self._scorer.info.window_size,
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
        opened_job.is_express = self._messages.is_express(task_id)
        opened_job.last_micro_batch = self._num_micro_batches
        self._jobs[task_id] = opened_job
        self._spans.open(task_id, job)
        return None

    def _set_aside(self, task_id: str, broken: Broken) -> Ending:
        self._store.set_aside(
            broken.kind,
            broken.reason,
            task_id=task_id,
            num_bytes=broken.num_bytes,
            raw=broken.payload,
        )
        return unreadable_ending(task_id, self._store.facts(task_id))

    def _ending_before_scoring(self, opened: Opened, crashes: Crashes) -> Ending | None:
        task_id, job = opened.task_id, opened.job
        if opened.lost_facts is not None:
            lost = JobLost("The text of the job is no longer stored; send it again.")
            return lost_ending(task_id, opened.lost_facts, lost)
        if job is None:
            return Ending(task_id)
        if self._messages.is_revoked(task_id):
            return failed_ending(task_id, job, job_cancelled())
        if self._store.has_passed(job.deadline_at):
            return failed_ending(task_id, job, job_expired())
        if crashes.are_too_many(self._max_crashes):
            return failed_ending(task_id, job, _poisonous(crashes.deaths))
        return None

    def _unwanted(self) -> Iterator[Ending]:
        """Yield the ends of jobs in hand that expired or were cancelled since they were opened."""
        begun = [job for job in self._jobs.values() if job.micro_batch]
        wanted = self._store.are_wanted([job.task_id for job in begun])
        for job, is_wanted in zip(begun, wanted, strict=True):
            if not is_wanted:
                yield Ending(job.task_id)
        for job in self._jobs.values():
            if not job.micro_batch and self._store.has_passed(job.deadline_at):
                yield failed_ending(job.task_id, job.job, job_expired())

    def _end_done(self) -> None:
        done = [job for job in self._jobs.values() if job.is_done]
        for job in done:
            self._scored[job.task_id] = _Scored.of(job)
            ending = scored_ending(job, self._scorer.model_of_results)
            self._end(ending, partial(failed_ending, job.task_id, job.job))
        stored = self._write_endings()
        now = CLOCK.now()
        self._status.count_latencies(
            now - job.job.submitted_at
            for job in done
            if job.priority == keys.INTERACTIVE and job.task_id in stored
        )

    def _end(self, ending: Ending, instead: Callable[[ServiceError], Ending] | None = None) -> None:
        """Have an ending written; the job needs no further micro-batch."""
        self._jobs.pop(ending.task_id, None)
        self._outbox.add(ending, instead)

    def _write_endings(self) -> set[str]:
        """Write how jobs ended, and acknowledge them; return those that are stored now."""
        if self._outbox:
            self._suspects = None
        ended = self._outbox.flush()
        refused = self._outbox.refused_since, self._not_opened_since
        self._status.refused_since = min((at for at in refused if at is not None), default=None)
        if ended:
            self._status.note_step()
        for each in ended:
            self._count_stages(each.task_id)
            if each.is_given_up:
                self._give_up(each.task_id)
            self._messages.acknowledge(each.task_id, is_success=each.state == "SUCCESS")
            self._spans.end(each.task_id, each.state or "GONE")
            # A job without a state was erased meanwhile.
            log.info("job_ended", task_id=each.task_id, state=each.state or "GONE")
        return {each.task_id for each in ended}

    def _count_stages(self, task_id: str) -> None:
        """Count the stages of a job that was scored and is stored now."""
        scored = self._scored.pop(task_id, None)
        if scored is None:
            return
        stages = {**scored.stages_s, "store": time.monotonic() - scored.at}
        for stage, elapsed_s in stages.items():
            self._status.count_stage(stage, scored.priority, elapsed_s)

    def _halve_budget(self) -> None:
        self._status.num_halvings += 1
        self._budget = replace(self._budget, bytes=max(self._budget.bytes // 2, 1))
        self._status.batch_bytes = self._budget.bytes
        log.warning("micro_batch_out_of_memory", max_bytes=self._budget.bytes)


class _Scored(NamedTuple):
    """What is kept of a scored job until it is stored: not its scores, which need much memory."""

    priority: int
    stages_s: dict[Stage, float]
    at: float
    """When it was scored, by the monotonic clock."""

    @classmethod
    def of(cls, job: ScoreJob) -> "_Scored":
        stages_s: dict[Stage, float] = {
            "queue": job.opened_at - job.job.submitted_at,
            "wait": (job.started_at or job.opened_at) - job.opened_at,
            "compute": job.compute_s,
        }
        return cls(job.priority, stages_s, time.monotonic())


def _distribute(choice: Choice, outcomes: Sequence[Outcome], turn: int) -> None:
    """Hand the outcomes of a micro-batch to the jobs of its slices."""
    following = iter(outcomes)
    for share in choice.shares:
        share.job.last_micro_batch = turn
        share.job.outcomes += [next(following) for _ in share.slices]


def _poisonous(num_crashes: int) -> ServiceError:
    return PoisonJob(
        f"{counted(num_crashes, 'worker')} died while scoring this job, so it is not tried again; "
        "send its texts one by one to find the one at fault.",
        num_crashes=num_crashes,
    )
