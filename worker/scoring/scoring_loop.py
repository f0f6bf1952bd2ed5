"""Runs the scoring loop: open fetched jobs, drop unwanted ones, choose, score, conclude.

Whatever waits in Redis when the worker is free is fetched up to a budget. While a micro-batch runs
the backlog forms in Redis, and the next fetch takes from all of it. Where that is little, the
worker may wait some milliseconds for the next texts of those who have just got results.

It imports neither Celery nor Redis: `protocols.py` defines what it needs of them.
`worker/queue/micro_batch.py` calls `turn` from Celery's event loop.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from contract import keys
from contract.batches import part_id
from contract.errors import ServiceError
from contract.logs import get_logger
from contract.service_clock import CLOCK
from contract.store.jobs.endings import Ending
from contract.worker_status import Stage
from worker.process.own_status import OwnStatus
from worker.scheduling.batching import Choice, Credit, choose_micro_batch
from worker.scheduling.batching_delay import BatchingDelay
from worker.scheduling.filling import Budget, Outcome
from worker.scheduling.pace import Pace
from worker.scheduling.room import Room, no_room, room_for_fetch
from worker.scoring.fetched_jobs import FetchedJobs
from worker.scoring.micro_batch_scorer import MicroBatchScorer
from worker.scoring.outbox import Outbox
from worker.scoring.outcomes import (
    ScoreJob,
    failed_ending,
    job_expired,
    scored_ending,
)
from worker.scoring.protocols import Messages, Store
from worker.scoring.spans import JobSpans

log = get_logger(__name__)


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
        self._budget, self._pace = budget, pace
        self._credit, self._batching_delay = Credit(), BatchingDelay()
        self._num_micro_batches = 0
        self._fetched = FetchedJobs(
            store, messages, status.name, scorer.info, max_crashes=max_crashes
        )
        self._jobs: dict[str, ScoreJob] = {}
        self._scored: dict[str, _Scored] = {}

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
            delays_s.append(self._fetched.delay_s)
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
        self._fetched.add(task_id)
        self._batching_delay.add(num_bytes, submitted_at)

    def room(self) -> dict[int, Room]:
        """Return how much the next fetch may bring of each priority.

        It brings nothing while a job is unopened, except for suspects, which wait for one another,
        and for jobs that wait for further ones.
        """
        has_unopened = self._fetched.has_trusted
        if self._is_held_up or (has_unopened and not self._batching_delay.num_expected):
            return no_room(self._budget)
        # Not by the pace: a part of a batch has as many bytes as the whole budget.
        rooms = room_for_fetch(self._jobs.values(), self._budget)
        if not has_unopened:
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
        if self._fetched.suspects != set(task_ids):
            self._store.note_aboard(task_ids, self._status.name)
        # Not known for the next micro-batch: a worker that takes over may set them aside meanwhile.
        self._fetched.suspects = None

    def _open_fetched(self) -> list[Ending]:
        """Take the fetched jobs that are opened now; return the ends of the others."""
        if self._is_held_up:
            return []
        endings = []
        max_slice_bytes = self._pace.limit(self._budget).bytes
        for opened in self._fetched.open(self._jobs.values(), max_slice_bytes):
            if isinstance(opened, Ending):
                endings.append(opened)
                continue
            opened.last_micro_batch = self._num_micro_batches
            self._jobs[opened.task_id] = opened
            self._spans.open(opened.task_id, opened.job)
        return endings

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
            self._fetched.suspects = None
        ended = self._outbox.flush()
        refused = self._outbox.refused_since, self._fetched.refused_since
        self._status.refused_since = min((at for at in refused if at is not None), default=None)
        if ended:
            self._status.note_step()
        for each in ended:
            self._count_stages(each.task_id)
            if each.is_given_up:
                self._fetched.give_up(each.task_id)
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
