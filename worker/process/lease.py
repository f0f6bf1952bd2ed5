"""Renews a worker's lease in Redis, with its status, and stops a worker whose micro-batch hangs."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import redis

from contract import keys
from contract.logs import get_logger
from contract.service_clock import CLOCK, steady
from contract.store.connection.scripts import register
from contract.worker_status import NotAWorkerStatus, WorkerStatus, decode_status
from worker.process.own_status import OwnStatus
from worker.process.scoring_mark import ScoringMark

log = get_logger(__name__)

_LUA = Path(__file__).parent / "lua"
# Renewals that may be missed before a lease lapses.
_RENEWALS_PER_LEASE = 4


class NameTaken(Exception):
    """Another running process holds the lease of this worker's name."""


class Lease:
    """Renews a worker's lease from a thread of its own while the worker makes progress.

    The event loop of a solo worker stands still while a micro-batch runs, so it cannot renew the
    lease. The thread also stops the process if its micro-batch makes no progress for too long.
    """

    def __init__(
        self,
        client: redis.Redis,
        status: OwnStatus,
        *,
        lease_s: float,
        micro_batch_timeout_s: float,
        health_file: Path | None = None,
        mark: ScoringMark | None = None,
    ) -> None:
        self.status = status
        self._client = client
        self._lease_s = lease_s
        self._micro_batch_timeout_s = micro_batch_timeout_s
        self._health_file = health_file
        self._is_untouched = False
        self._mark = mark
        self._key = keys.lease(status.name)
        self._progress_at: float | None = None
        self._drain_until: float | None = None
        self._give_back: Callable[[], None] | None = None
        self.has_name = False
        """Whether a predecessor's jobs were requeued, so that suspects of this name are ours."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def acquire(self) -> None:
        """Take the lease of this worker's name, and keep it until `release`.

        The lease of a dead process is taken over at once if this process can tell that it is dead:
        on the same machine, in the same container if in any. Any other lease has to expire first.

        Raises:
            NameTaken: its holder renewed it meanwhile.
            redis.RedisError: Redis does not answer.
        """
        # Until now its own machine's clock was all that it knew.
        CLOCK.ask(self._client)
        self.status.started_at = CLOCK.now()
        lapses_at = time.monotonic() + self._lease_s + 1
        while self._is_held_by_other():
            if time.monotonic() > lapses_at:
                raise NameTaken(
                    f"another running worker is named {self.status.name}; "
                    "give this one another EVASCORE_WORKER_NAME"
                )
            time.sleep(0.2)
        self.renew()
        if not self._thread.is_alive():
            self._thread.start()

    def release(self) -> None:
        """Stop renewing and delete the lease, so that nobody waits for it to expire."""
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            # A renewal that is under way would outlast the deletion.
            self._thread.join(self._lease_s / _RENEWALS_PER_LEASE)
        try:
            # Together: a peer that sees only the lease gone notes this worker as lost.
            with self._client.pipeline() as pipe:
                pipe.delete(self._key).srem(keys.WORKERS, self.status.name)
                pipe.execute()
        except redis.RedisError:
            log.warning("lease_not_released", worker=self.status.name)

    def abandon(self) -> None:
        """Stop renewing, and mark this process as one that ends while it scores."""
        self._stopped.set()
        self.mark_scoring()

    def mark_scoring(self) -> None:
        """Mark on disk that scoring begins: before its jobs can be noted as suspects."""
        if self._mark is not None:
            self._mark.begin()

    def mark_idle(self) -> None:
        """Mark on disk that this process is not scoring."""
        if self._mark is not None:
            self._mark.end()

    def begin_batch(self) -> None:
        """Note that a micro-batch starts: from now on progress is expected."""
        self.progress()
        if self.status.state == "ready":
            self.status.state = "busy"

    def progress(self, _num_bytes: int = 0) -> None:
        """Note that a forward pass ended."""
        self._progress_at = time.monotonic()
        self.status.note_step()

    def end_batch(self) -> None:
        """Note that the micro-batch ended, with or without an error."""
        self._progress_at = None
        self.mark_idle()
        if self.status.state == "busy":
            self.status.state = "ready"

    def drain(self, within_s: float, give_back: Callable[[], None]) -> None:
        """Stop the worker: after `within_s`, requeue the jobs of its micro-batch and exit.

        A second call gives no more time. Callable from a signal handler.
        """
        self.status.state = "draining"
        self._give_back = give_back
        if self._drain_until is None:
            self._drain_until = time.monotonic() + within_s

    def _run(self) -> None:
        while not self._stopped.wait(self._lease_s / _RENEWALS_PER_LEASE):
            self._stop_if_hung()
            self._stop_if_drained()
            try:
                self.renew()
            except redis.RedisError as error:
                log.warning("lease_not_renewed", error=type(error).__name__)

    def renew(self) -> None:
        """Write the lease and the status to Redis now."""
        # A peer that saw the lease lapse may have set our suspects aside; we live.
        suspects = keys.missing_aboard(self.status.name) if self.has_name else ""
        asked_at = steady()
        time_of_redis = register(self._client, "renew_lease", _LUA)(
            keys=[keys.WORKERS, self._key, keys.LOST_WORKERS, suspects, keys.MISSING],
            args=[self.status.name, self.status.encode(), int(self._lease_s * 1000)],
        )
        CLOCK.note(time_of_redis, asked_at)
        if self._health_file is not None and self.status.is_warm:
            self._touch(self._health_file)

    def _touch(self, health_file: Path) -> None:
        """Touch the file of the health checks; the worker goes on without it."""
        try:
            health_file.touch()
            self._is_untouched = False
        except OSError as error:
            if not self._is_untouched:
                log.warning("health_file_not_touched", error=type(error).__name__)
            self._is_untouched = True

    def _stop_if_hung(self) -> None:
        if self._progress_at is None:
            return
        silent_s = time.monotonic() - self._progress_at
        if silent_s > self._micro_batch_timeout_s:
            log.error("micro_batch_hung", silent_s=round(silent_s), worker=self.status.name)
            os._exit(os.EX_SOFTWARE)

    def _stop_if_drained(self) -> None:
        if self._drain_until is None or time.monotonic() < self._drain_until:
            return
        assert self._give_back is not None
        log.warning("micro_batch_given_back", worker=self.status.name)
        # Without Redis, only the mark tells that this is no crash.
        self.mark_idle()
        try:
            self._give_back()
        finally:
            os._exit(os.EX_OK)

    def _is_held_by_other(self) -> bool:
        value = self._client.get(self._key)
        if value is None:
            return False
        try:
            holder = decode_status(value)
        except NotAWorkerStatus as error:
            log.warning("lease_unreadable", worker=self.status.name, reason=str(error))
            return True
        if _place(holder) != _place(self.status):
            return True
        return holder.pid != self.status.pid and _is_alive(holder.pid)


def _place(status: WorkerStatus) -> tuple[str, str]:
    """Where the process ID of a worker is its own; containers may share the name of the host."""
    return status.host, status.pid_namespace


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
