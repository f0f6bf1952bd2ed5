"""Connects the scoring loop to Celery: gathers messages, runs turns, acknowledges jobs.

The order within a turn of Celery's event loop is: callbacks, timers, sending the next fetch,
polling. So a micro-batch runs after every message of a fetch has arrived and before the next fetch
is sent.

Written against Celery 5.7: it uses `consumer.call_soon`, `consumer.hub` and the state of requests.
"""

import os
import time
import traceback
from contextlib import suppress
from functools import partial
from typing import Any

import redis
from celery import Task
from celery.utils.imports import symbol_by_name
from celery.worker import state as celery_state
from celery.worker.request import create_request_cls
from kombu.transport import virtual

from contract.logs import get_logger
from worker.process.runtime import Runtime
from worker.process.suspects import Crashes, crashes_of, take_back
from worker.queue.transport import refusal_as_lost_connection
from worker.scheduling.batching_delay import LOOK_EVERY_S
from worker.scheduling.filling import Budget
from worker.scheduling.pace import Pace
from worker.scoring.micro_batch_scorer import MemoryTaken, MicroBatchScorer
from worker.scoring.outbox import Outbox
from worker.scoring.scoring_loop import ScoringLoop
from worker.scoring.spans import JobSpans

log = get_logger(__name__)


class MicroBatch(Task):
    """Base of the scoring task: its messages are gathered instead of run one by one."""

    abstract = True
    acks_late = True

    def Strategy(self, task: Task, app: Any, consumer: Any) -> Any:  # noqa: N802 - Celery's hook
        """Return the handler of this task's messages; Celery asks again at every connection."""
        turns = Turns(app.runtime, consumer)
        request_class = create_request_cls(
            symbol_by_name(task.Request), task, consumer.pool, consumer.hostname, None, app=app
        )

        def on_message(
            message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **_: Any
        ) -> None:
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
            turns.add(request)

        return on_message


class CeleryMessages:
    """The messages of the jobs in hand, as Celery's requests; `ScoringLoop` ends them."""

    def __init__(self, revoked: Any) -> None:
        """Take the task IDs that were revoked through Celery."""
        self._revoked = revoked
        self._requests: dict[str, Any] = {}
        self._fetched_again: list[str] = []
        self._crashes: dict[str, Crashes] = {}

    @property
    def channel(self) -> Any:
        """The channel that the messages came by; None when none is in hand."""
        request = next(iter(self._requests.values()), None)
        return request and request.message.channel

    def __contains__(self, task_id: str) -> bool:
        """Whether the message of the job is in hand."""
        return task_id in self._requests

    def add(self, request: Any) -> None:
        """Take a request that was fetched."""
        celery_state.task_reserved(request)
        self._requests[request.id] = request
        if request.message.delivery_info.get("redelivered"):
            self._fetched_again.append(request.id)

    def is_revoked(self, task_id: str) -> bool:
        """Tell whether the task was revoked through Celery."""
        return task_id in self._revoked

    def is_express(self, task_id: str) -> bool:
        """Tell whether the job was fetched before those whose clients take turns."""
        return bool(self._requests[task_id].message.delivery_info.get("express"))

    def read_crashes(self, client: redis.Redis) -> None:
        """Read the crashes of the jobs that were fetched again since the last call."""
        again, self._fetched_again = self._fetched_again, []
        self._crashes |= crashes_of(client, again)

    def crashes(self, task_id: str) -> Crashes:
        """Return how many workers died while they scored the job."""
        return self._crashes.get(task_id, Crashes())

    def acknowledge(self, task_id: str, *, is_success: bool) -> None:
        """Drop a message from Celery's and kombu's books; the store dropped it from Redis."""
        request = self._requests.pop(task_id)
        self._crashes.pop(task_id, None)
        request.acknowledged = True
        request.message._state = "ACK"
        virtual.QoS.ack(request.message.channel.qos, request.message.delivery_tag)
        celery_state.task_ready(request, successful=is_success)

    def forget(self) -> None:
        """Drop all messages from Celery's books; Redis delivers them again."""
        for request in self._requests.values():
            celery_state.task_ready(request)
        self._requests.clear()


class Turns:
    """Calls the scoring loop from Celery's event loop, until the connection to Redis is lost.

    Celery makes another one for the next connection, and the unacknowledged jobs come again.
    """

    def __init__(self, runtime: Runtime, consumer: Any) -> None:
        """Serve one connection of `consumer`; the model of `runtime` is loaded."""
        assert runtime.scorer is not None
        self._runtime = runtime
        self._client, self._worker = runtime.client, runtime.status.name
        settings, status = runtime.settings, runtime.status
        self._spans = JobSpans(runtime.tracing)
        self._messages = CeleryMessages(consumer.controller.state.revoked)
        outbox = Outbox(
            partial(runtime.store.conclude, worker=self._worker), on_refusal=status.count_refusals
        )
        self._loop = ScoringLoop(
            runtime.store,
            self._messages,
            outbox,
            MicroBatchScorer(runtime.scorer, runtime.lease, status),
            status,
            budget=Budget.of(settings),
            pace=Pace(settings.micro_batch_s),
            max_crashes=settings.max_crashes,
            spans=self._spans,
        )
        self._call_soon, self._call_after = consumer.call_soon, consumer.timer.call_after
        self._is_scheduled = False
        self._is_abandoned = False
        # On a lost connection Celery resets its hub, which still calls what is scheduled.
        consumer.hub.on_close.add(self._leave_hub)

    def add(self, request: Any) -> None:
        """Take a fetched job; the turn runs after all jobs of its fetch were added.

        A second copy of a message in hand is dropped. Both have the same delivery tag, so they are
        one unacknowledged message in Redis, which the first copy acknowledges.
        """
        if request.id in self._messages:
            log.warning("second_copy_dropped", task_id=request.id)
            return
        self._messages.add(request)
        headers = request.message.headers
        self._loop.add(request.id, headers["cost"], headers.get("submitted_at", 0.0))
        self._schedule()

    def turn(self) -> None:
        """Run one turn of the scoring loop, and have the next one follow while jobs are in hand."""
        self._is_scheduled = False
        channel = self._messages.channel
        if self._is_abandoned or is_stopping() or channel is None:
            return  # what is unacknowledged goes back when the channel closes
        delay_s = 0.0 if channel.is_refused else self._loop.batching_delay_s
        if delay_s:
            self._look_for_more(channel, delay_s)
            return
        self._run_loop()
        channel.room = self._loop.room()
        channel.opens_after = self._loop.opens_after
        next_s = self._loop.delay_s
        if next_s is None:
            return
        channel.look_again()
        if next_s:
            self._call_after(next_s, self._schedule)
        else:
            self._schedule()

    def _look_for_more(self, channel: Any, delay_s: float) -> None:
        """Wait a moment for further texts, and have the next turn follow a fetch."""
        channel.room, channel.opens_after = self._loop.room(), None
        # BLMOVE may end 0.1 s late: an idle Redis looks for timeouts 10 times a second.
        time.sleep(min(delay_s, LOOK_EVERY_S))
        channel.look_for_more(self._schedule)

    def _run_loop(self) -> None:
        """Run one turn of the scoring loop; an error of the loop ends the worker.

        Raises:
            redis.RedisError: Redis is away.
            SystemExit, TurnFailed
        """
        self._runtime.lease.mark_scoring()
        try:
            with refusal_as_lost_connection():
                self._messages.read_crashes(self._client)
                self._loop.turn()
        except redis.RedisError:
            self._abandon()
            # The scoring is over; if the process ends before it reconnects, that is no crash.
            with suppress(redis.RedisError):
                take_back(self._client, self._worker)
            raise
        except MemoryTaken:
            log.error("memory_taken", check="which other programs use the memory of the device")
            # Celery ends the worker, which gives its jobs back.
            raise SystemExit(os.EX_TEMPFAIL) from None
        except Exception as error:  # noqa: BLE001 - the edge at which a fault of ours ends the worker
            self._abandon()
            self._runtime.is_broken = True
            raise _turn_failed(error) from None
        finally:
            self._runtime.lease.mark_idle()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self.turn)

    def _leave_hub(self, hub: Any) -> None:
        hub.on_close.discard(self._leave_hub)
        self._abandon()
        # It may have marked a fetch that was not answered.
        self._runtime.lease.mark_idle()

    def _abandon(self) -> None:
        """Run no more turns: Redis is away, and delivers the jobs again when it is back."""
        self._is_abandoned = True
        self._messages.forget()
        self._spans.abandon()


class TurnFailed(Exception):
    """The scoring loop met an error that it does not know: the worker ends."""


def _turn_failed(error: Exception) -> TurnFailed:
    """Log where the error came from; its message may quote a text, and kombu retries a KeyError."""
    *_, frame = traceback.extract_tb(error.__traceback__)
    kind = type(error).__name__
    log.error("turn_failed", error=kind, file=frame.filename, line=frame.lineno)
    return TurnFailed(kind)


def is_stopping() -> bool:
    """Tell whether Celery is to stop: its flags then hold an exit code, and that may be 0."""
    flags = (celery_state.should_stop, celery_state.should_terminate)
    return any(flag is not None and flag is not False for flag in flags)
