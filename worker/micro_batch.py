"""The scoring task: gathers what was fetched and scores one batch per turn of the event loop.

There is no timer. Whatever waits in Redis when the worker is free is fetched up to a budget; while
a batch runs the backlog forms in Redis, and the next fetch takes from all of it. The order within a
turn of Celery's event loop (callbacks, timers, sending the next fetch, polling) makes a batch run
after every message of a fetch has arrived and before the next fetch is sent.
"""

import os
import time
from dataclasses import replace
from typing import Any

from celery import Task
from celery.utils.imports import symbol_by_name
from celery.worker import state as celery_state
from celery.worker.request import create_request_cls
from kombu.transport import virtual

from contract import keys
from contract.errors import JobCancelled, JobExpired, JobLost, PoisonJob, ServiceError
from contract.logs import get_logger
from contract.store.endings import Ending
from contract.store.job_store import Opened
from worker.batching import Budget, Choice, choose_batch
from worker.outcomes import (
    Outcome,
    ScoreJob,
    failed_ending,
    lost_ending,
    note_batch,
    open_job,
    scored_ending,
)
from worker.recovery import CRASHES_HEADER
from worker.runtime import Runtime
from worker.scoring import ModelBroken, score_texts
from worker.transport import Room, refusal_as_lost_connection

log = get_logger(__name__)


class MicroBatch(Task):
    """Base of the scoring task: its messages are gathered instead of run one by one."""

    abstract = True
    acks_late = True

    def Strategy(self, task: Task, app: Any, consumer: Any) -> Any:  # noqa: N802 - Celery's hook
        """The handler of this task's messages, made anew whenever Celery connects to the broker."""
        loop = BatchLoop(app.runtime, consumer)
        request_class = create_request_cls(
            symbol_by_name(task.Request), task, consumer.pool, consumer.hostname, None, app=app
        )

        def on_message(
            message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **_: Any
        ) -> None:
            if message.delivery_tag != message.headers["id"]:
                # Not from our web tier: it names no job of ours and would never be acknowledged.
                log.warning("foreign_message_dropped", task_id=message.headers["id"])
                message.ack()
                return
            request = request_class(
                message,
                on_ack=ack,
                on_reject=reject,
                app=app,
                hostname=consumer.hostname,
                task=task,
                connection_errors=consumer.connection_errors,
                body=message.body,
                headers=message.headers,
                decoded=False,
            )
            loop.add(request)

        return on_message


class BatchLoop:
    """The jobs in this worker's hands, and the turn that brings them on by one batch.

    Lives as long as one connection to the broker: after a lost one the jobs come again.
    """

    def __init__(self, runtime: Runtime, consumer: Any) -> None:
        assert runtime.scorer is not None
        self._runtime = runtime
        self._scorer = runtime.scorer
        self._model = _model_of_results(self._scorer.info.as_json())
        self._call_soon = consumer.call_soon
        self._revoked = consumer.controller.state.revoked
        settings = runtime.settings
        self._budget = Budget(
            settings.micro_batch_bytes, settings.micro_batch_texts, settings.max_result_bytes
        )
        self._bulk_credit_bytes = 0.0
        self._requests: dict[str, Any] = {}
        self._fetched: list[str] = []
        self._jobs: dict[str, ScoreJob] = {}
        self._is_scheduled = False
        self._is_abandoned = False
        # On a lost connection Celery resets its hub, which still calls what is scheduled.
        consumer.hub.on_close.add(self._leave_hub)

    def add(self, request: Any) -> None:
        """Take a fetched job; a turn follows when all of its fetch have been added."""
        celery_state.task_reserved(request)
        self._requests[request.id] = request
        self._fetched.append(request.id)
        self._schedule()

    def turn(self) -> None:
        """Open what was fetched, drop what is not wanted any more, score one batch, end jobs."""
        self._is_scheduled = False
        if self._is_abandoned or is_stopping() or not self._requests:
            return  # what is unacknowledged goes back when the channel closes
        channel = next(iter(self._requests.values())).message.channel
        try:
            with refusal_as_lost_connection():
                self._conclude([*self._open_fetched(), *self._unwanted()])
                self._run_batch()
        except BaseException:
            self._abandon()
            raise
        channel.room = self._room()
        if self._jobs:
            channel.look_again()
            self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self.turn)

    def _open_fetched(self) -> list[Ending]:
        fetched, self._fetched = self._fetched, []
        endings = []
        for opened in self._runtime.store.open_jobs(fetched):
            ending = self._ending_before_scoring(opened)
            if ending is not None:
                endings.append(ending)
                continue
            assert opened.job is not None
            self._jobs[opened.task_id] = open_job(
                opened.task_id,
                opened.job,
                num_crashes=self._num_crashes(opened.task_id),
                part_bytes=self._budget.bytes,
                max_text_bytes=self._scorer.info.max_text_bytes,
                window_size=self._scorer.info.window_size,
            )
        return endings

    def _ending_before_scoring(self, opened: Opened) -> Ending | None:
        task_id, job = opened.task_id, opened.job
        if opened.lost_facts is not None:
            lost = JobLost("The job's text is not stored any more; send it again.")
            return lost_ending(task_id, opened.lost_facts, lost)
        if job is None:
            return Ending(task_id)
        if task_id in self._revoked:
            return failed_ending(task_id, job, JobCancelled("The job was revoked."))
        if job.deadline_at < time.time():
            return failed_ending(task_id, job, _expired())
        num_crashes = self._num_crashes(task_id)
        if num_crashes >= self._runtime.settings.max_crashes:
            return failed_ending(task_id, job, _poisonous(num_crashes))
        return None

    def _unwanted(self) -> list[Ending]:
        """Endings of jobs in hand that expired or were cancelled since they were opened."""
        endings = []
        carried_over = [job for job in self._jobs.values() if job.batch]
        wanted = self._runtime.store.are_wanted([job.task_id for job in carried_over])
        for job, is_wanted in zip(carried_over, wanted, strict=True):
            if not is_wanted:
                endings.append(Ending(job.task_id))
        now = time.time()
        for job in self._jobs.values():
            if not job.batch and job.deadline_at < now:
                endings.append(failed_ending(job.task_id, job.job, _expired()))
        return endings

    def _run_batch(self) -> None:
        choice = choose_batch(self._jobs.values(), self._budget, self._bulk_credit_bytes)
        self._bulk_credit_bytes = choice.bulk_credit_bytes
        if choice.slices:
            self._runtime.store.note_aboard(
                (part.job.task_id for part in choice.slices), self._runtime.status.name
            )
            self._distribute(choice, self._score(choice))
        done = [job for job in self._jobs.values() if job.is_done]
        self._conclude([scored_ending(job, self._model) for job in done])
        now = time.time()
        self._runtime.status.count_latencies(
            now - job.job.submitted_at for job in done if job.priority == keys.INTERACTIVE
        )

    def _score(self, choice: Choice) -> list[Outcome]:
        lease, started_at, started = self._runtime.lease, time.time(), time.monotonic()
        lease.begin_batch()
        try:
            outcomes = score_texts(
                self._scorer,
                [text for part in choice.slices for text in part.texts],
                on_pass=lease.progress,
                on_out_of_memory=self._halve_budget,
            )
        except ModelBroken as error:
            # Nothing here can score any more. Leaving without a word to Redis makes the batch
            # suspect: should one of its texts have broken the model, it is found and failed.
            log.error("model_broken", error=str(error))
            os._exit(os.EX_SOFTWARE)
        finally:
            lease.end_batch()
        self._tell_of_shorter_passes()
        elapsed_s = time.monotonic() - started
        note_batch(choice, started_at, elapsed_s)
        self._runtime.status.count_batch(choice.num_texts, choice.num_bytes, elapsed_s)
        log.info(
            "batch_scored",
            batch_texts=choice.num_texts,
            batch_bytes=choice.num_bytes,
            jobs=len(choice.slices),
            compute_ms=round(elapsed_s * 1000, 1),
        )
        return outcomes

    @staticmethod
    def _distribute(choice: Choice, outcomes: list[Outcome]) -> None:
        following = iter(outcomes)
        for part in choice.slices:
            part.job.outcomes += [next(following) for _ in part.texts]

    def _conclude(self, endings: list[Ending]) -> None:
        """End jobs in Redis and in Celery's books, in one round trip."""
        if not endings:
            return
        states = self._runtime.store.conclude(endings, self._runtime.status.name)
        for ending, state in zip(endings, states, strict=True):
            self._jobs.pop(ending.task_id, None)
            request = self._requests.pop(ending.task_id)
            request.acknowledged = True
            request.message._state = "ACK"
            virtual.QoS.ack(request.message.channel.qos, request.message.delivery_tag)
            celery_state.task_ready(request, successful=state == "SUCCESS")

    def _leave_hub(self, hub: Any) -> None:
        hub.on_close.discard(self._leave_hub)
        self._abandon()

    def _abandon(self) -> None:
        """Redis is away: forget the jobs here, they are requeued when the connection is back."""
        self._is_abandoned = True
        for request in self._requests.values():
            celery_state.task_ready(request)

    def _tell_of_shorter_passes(self) -> None:
        status, pass_bytes = self._runtime.status, self._scorer.pass_bytes
        if status.pass_bytes != pass_bytes:
            status.pass_bytes = pass_bytes
            log.warning("pass_out_of_memory", pass_bytes=pass_bytes)

    def _halve_budget(self) -> None:
        self._budget = replace(self._budget, bytes=max(self._budget.bytes // 2, 1))
        self._runtime.status.batch_bytes = self._budget.bytes
        log.warning("batch_out_of_memory", batch_bytes=self._budget.bytes)

    def _num_crashes(self, task_id: str) -> int:
        return int(self._requests[task_id].message.headers.get(CRASHES_HEADER, 0))

    def _room(self) -> dict[int, Room]:
        """What the next fetch may bring: of each priority as much as one batch holds."""
        room = {}
        for priority in keys.PRIORITY_STEPS:
            held = [job for job in self._jobs.values() if job.priority == priority]
            held_bytes = sum(job.waiting_bytes for job in held)
            room[priority] = Room(
                max(self._budget.texts - len(held), 0), max(self._budget.bytes - held_bytes, 0)
            )
        return room


def is_stopping() -> bool:
    """Whether Celery is to stop; its flags hold the exit code, and that of success is falsy."""
    flags = (celery_state.should_stop, celery_state.should_terminate)
    return any(flag is not None and flag is not False for flag in flags)


def _expired() -> ServiceError:
    return JobExpired(
        "The job's deadline passed before it was scored; ask for a longer deadline_s."
    )


def _poisonous(num_crashes: int) -> ServiceError:
    return PoisonJob(
        f"{num_crashes} workers died while they scored this job; it is not tried again.",
        num_crashes=num_crashes,
    )


def _model_of_results(info: dict[str, Any]) -> dict[str, Any]:
    """What each result tells of the model that made it."""
    shown = ("name", "revision", "quantization", "dtype", "backend", "is_demo")
    return {name: info[name] for name in shown}
